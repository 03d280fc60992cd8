-- An item of an upload that has its end already.
--
-- KEYS  see common.lua
-- ARGV  id, result, summary, bytes of an item without its result, most bytes
-- Returns 'added', 'unknown' or 'too many bytes'.

local id, result = ARGV[1], ARGV[2]
if get(id, 'state') ~= 'draft' then return 'unknown' end
if held_bytes() + ARGV[4] + #result > tonumber(ARGV[5]) then return 'too many bytes' end

redis.call('HINCRBY', JOB .. id, 'items', 1)
count(id, ARGV[4])
append_result(id, '0', 0, result, ARGV[3])
keep_on(id)
return 'added'
