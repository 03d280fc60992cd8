-- How a delivery ended.
--
-- KEYS  see common.lua
-- ARGV  id, attempt, state, detail, milliseconds until it is due again

local id, state = ARGV[1], ARGV[3]
if get(id, 'hook_attempts') ~= ARGV[2] or not redis.call('ZSCORE', HOOKS, id) then return end
if state == 'pending' then
  redis.call('ZADD', HOOKS, clock() + ARGV[5], id)
else
  redis.call('ZREM', HOOKS, id)
end
redis.call('HSET', JOB .. id, 'hook', state, 'hook_detail', ARGV[4])
