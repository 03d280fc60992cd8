-- How many jobs wait for a lease.
--
-- KEYS  see common.lua

local pending = redis.pcall('XPENDING', JOBS, GROUP)
return redis.call('XLEN', JOBS) - (pending[1] or 0)
