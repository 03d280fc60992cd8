-- What the queue holds.
--
-- KEYS  see common.lua
-- Returns {jobs in flight, those leased, dead letters, milliseconds since the oldest one's admission, workers
-- that are ready}.

local now = clock()
local pending = redis.pcall('XPENDING', JOBS, GROUP)
local oldest = redis.call('XRANGE', JOBS, '-', '+', 'COUNT', 1)[1]
return {
  redis.call('XLEN', JOBS),
  pending[1] or 0,
  redis.call('XLEN', DEAD),
  oldest and now - admitted_at(oldest[1]) or 0,
  redis.call('ZCOUNT', WORKERS, '(' .. now, '+inf'),
}
