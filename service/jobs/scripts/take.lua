-- Begin to work on an item.
--
-- KEYS  see common.lua
-- ARGV  id, fence, place
-- Returns {'taken', attempt, item}, {'done'} if it has its result, or {'lost'}.

local id, place = ARGV[1], ARGV[3]
if not is_held(id, ARGV[2]) then return {'lost'} end
local item = redis.call('HGET', ITEMS .. id, place)
if not item then return {'done'} end
return {'taken', tonumber(redis.call('ZINCRBY', LEFT .. id, 1, place)), item}
