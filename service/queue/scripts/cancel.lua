-- A caller leaves; the job goes with its last one, leased or not.
--
-- KEYS  see common.lua
-- ARGV  id, caller

local id, caller = ARGV[1], ARGV[2]
redis.call('HDEL', JOB .. id, caller)
local entry = redis.call('HGET', JOB .. id, 'entry')
if entry and redis.call('HLEN', JOB .. id) == 2 then remove(entry, id) end
-- Pixels of an admission that did not come to its end; others may still wait for a job that has the caller's.
if pixels_of(id) ~= PIXELS .. caller then redis.call('UNLINK', PIXELS .. caller) end
