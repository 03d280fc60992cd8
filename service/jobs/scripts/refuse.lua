-- An item of an upload that has its end already.
--
-- KEYS  see common.lua
-- ARGV  id, result, summary, bytes of an item without its result, most bytes, and most of one owner
-- Returns {'added'}, {'unknown'}, or what `no_room` says.

local id, result = ARGV[1], ARGV[2]
if get(id, 'state') ~= 'draft' then return {'unknown'} end
local refusal = no_room(get(id, 'owner'), get(id, 'bytes'), ARGV[4] + #result, ARGV[5], ARGV[6])
if refusal then return refusal end

redis.call('HINCRBY', JOB .. id, 'items', 1)
count(id, ARGV[4])
append_result(id, '0', 0, result, ARGV[3])
keep_on(id)
return {'added'}
