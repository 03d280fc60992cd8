-- Write an item's result, unless the lease was lost or it has one.
--
-- KEYS  see common.lua
-- ARGV  id, fence, place, 1 if it was scored, result, summary, bytes of an item without its result
-- Returns 1; 0 if the lease was lost.

local id, place = ARGV[1], ARGV[3]
local item = redis.call('HGET', ITEMS .. id, place)
if not item then
  -- A driver whose connection broke asks twice; also after the last item, which ended the job.
  return get(id, 'fence') == ARGV[2] and get(id, 'state') ~= 'expired' and 1 or 0
end
if not is_held(id, ARGV[2]) then return 0 end

redis.call('ZREM', LEFT .. id, place)
redis.call('HDEL', ITEMS .. id, place)
redis.call('UNLINK', PICTURE .. id .. ':' .. place)
append_result(id, ARGV[4], cjson.decode(item).counted - ARGV[7], ARGV[5], ARGV[6])
keep_on(id)
if redis.call('ZCARD', LEFT .. id) == 0 then end_job(id, 'done', clock()) end
return 1
