-- Extend a lease.
--
-- KEYS  see common.lua
-- ARGV  id, fence, milliseconds of a lease
-- Returns {1 if it is held, jobs that nobody drives}.

local now = clock()
local held = is_held(ARGV[1], ARGV[2])
if held then redis.call('ZADD', OPEN, now + ARGV[3], ARGV[1]) end
return {held and 1 or 0, redis.call('ZCOUNT', OPEN, '-inf', now)}
