-- Lease the job that has been without a driver longest.
--
-- KEYS  see common.lua
-- ARGV  milliseconds of a lease
-- Returns {id, fence, options, request, 1 if the driver before let its lease run out, places left and their attempts},
-- or nothing.

local now = clock()
sweep(now)
local id = redis.call('ZRANGEBYSCORE', OPEN, '-inf', now, 'LIMIT', 0, 1)[1]
if not id then return false end
local options = get(id, 'options')
if not options then  -- somebody deleted keys by hand; nobody is to trip over that for ever
  forget(id)
  return false
end

local abandoned = redis.call('HEXISTS', JOB .. id, 'driver')
redis.call('ZADD', OPEN, now + ARGV[1], id)
local fence = redis.call('HINCRBY', JOB .. id, 'fence', 1)
redis.call('HSET', JOB .. id, 'driver', fence)
return {id, fence, options, get(id, 'request'), abandoned, redis.call('ZRANGE', LEFT .. id, 0, -1, 'WITHSCORES')}
