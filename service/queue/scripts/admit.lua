-- Take a job whose pixels have just been set, or join the one of the same id.
--
-- KEYS  see common.lua
-- ARGV  id, caller, gateway, milliseconds to the deadline, capacity, the outcome EXPIRED, milliseconds that an
--       answer waits for its gateway, milliseconds that pixels outlive a deadline
-- Returns one of {'admitted'}, {'joined'}, {'finished', outcome}, {'no worker'}, {'full'}, {'no pixels'}.

local id, caller, gateway = ARGV[1], ARGV[2], ARGV[3]
local now = clock()
local deadline = now + ARGV[4]

local function without_pixels(...)
  redis.call('UNLINK', PIXELS .. caller)
  return {...}
end

sweep(now, ARGV[6], ARGV[7])

local outcome = redis.call('HGET', RESULT .. id, 'outcome')
if outcome then return without_pixels('finished', outcome) end

local pixels = pixels_of(id)
if pixels then
  redis.call('HSET', JOB .. id, caller, gateway)
  redis.call('ZADD', DEADLINES, 'GT', deadline, id)
  redis.call('PEXPIREAT', pixels, redis.call('ZSCORE', DEADLINES, id) + ARGV[8])
  return without_pixels('joined')
end

if redis.call('ZCOUNT', WORKERS, '(' .. now, '+inf') == 0 then return without_pixels('no worker') end
if redis.call('XLEN', JOBS) >= tonumber(ARGV[5]) then return without_pixels('full') end
-- A full Redis refused them. Without this, and with room again by now, the job would have none.
if redis.call('EXISTS', PIXELS .. caller) == 0 then return {'no pixels'} end

local entry = redis.call('XADD', JOBS, '*', 'id', id)
redis.call('HSET', JOB .. id, 'entry', entry, 'pixels', caller, caller, gateway)
redis.call('ZADD', DEADLINES, deadline, id)
redis.call('PEXPIREAT', PIXELS .. caller, deadline + ARGV[8])
return {'admitted'}
