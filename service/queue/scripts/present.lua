-- A worker says that it is here, and whether it is ready.
--
-- KEYS  see common.lua
-- ARGV  worker, 1 if it is ready, milliseconds that this is believed, milliseconds after which a consumer
--       that does nothing is forgotten

local now = clock()
redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now)  -- first, so that a full Redis lets the rest pass
if ARGV[2] == '1' then
  redis.call('ZADD', WORKERS, now + ARGV[3], ARGV[1])
else
  redis.call('ZREM', WORKERS, ARGV[1])
end

-- Each worker is a consumer under a name of its own, which Redis would remember for ever.
local consumers = redis.pcall('XINFO', 'CONSUMERS', JOBS, GROUP)
if consumers.err then
  redis.call('XGROUP', 'CREATE', JOBS, GROUP, '0', 'MKSTREAM')
  consumers = {}
end
for _, consumer in ipairs(consumers) do
  if field(consumer, 'pending') == 0 and field(consumer, 'idle') > tonumber(ARGV[4]) then
    redis.call('XGROUP', 'DELCONSUMER', JOBS, GROUP, field(consumer, 'name'))
  end
end
