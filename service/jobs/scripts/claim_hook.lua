-- Take a webhook that is due.
--
-- KEYS  see common.lua
-- ARGV  milliseconds for which nobody else is to deliver it
-- Returns {id, attempt}, or nothing.

local now = clock()
local id = redis.call('ZRANGEBYSCORE', HOOKS, '-inf', now, 'LIMIT', 0, 1)[1]
if not id then return false end
redis.call('ZADD', HOOKS, now + ARGV[1], id)
return {id, redis.call('HINCRBY', JOB .. id, 'hook_attempts', 1)}
