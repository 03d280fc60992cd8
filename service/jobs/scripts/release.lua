-- Let somebody else drive the job.
--
-- KEYS  see common.lua
-- ARGV  id, fence; then the places of the items under way

local id = ARGV[1]
if not is_held(id, ARGV[2]) then return end
redis.call('HDEL', JOB .. id, 'driver')
redis.call('ZADD', OPEN, clock(), id)
for i = 3, #ARGV do
  if (tonumber(redis.call('ZSCORE', LEFT .. id, ARGV[i]) or '0')) > 0 then
    redis.call('ZINCRBY', LEFT .. id, -1, ARGV[i])
  end
end
