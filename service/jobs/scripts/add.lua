-- Count an item of an upload, before its bytes are set.
--
-- KEYS  see common.lua
-- ARGV  id, place, the item as JSON without its count, bytes of the picture and of the item itself, most bytes, and
--       most of one owner
-- Returns {'added'}, {'unknown'}, or what `no_room` says.

local id, place = ARGV[1], ARGV[2]
if get(id, 'state') ~= 'draft' then return {'unknown'} end
local counted = ARGV[4] + get(id, 'room')
local refusal = no_room(get(id, 'owner'), get(id, 'bytes'), counted, ARGV[5], ARGV[6])
if refusal then return refusal end

local item = cjson.decode(ARGV[3])
item.counted = counted
count(id, counted)
redis.call('HINCRBY', JOB .. id, 'items', 1)
redis.call('HSET', ITEMS .. id, place, cjson.encode(item))
redis.call('ZADD', LEFT .. id, 0, place)
keep_on(id)
return {'added'}
