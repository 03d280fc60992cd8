-- Lease jobs: first those whose worker let its lease run out, then the oldest that wait.
--
-- KEYS  see common.lua
-- ARGV  worker, how many at most, milliseconds of a lease, most attempts, the outcome EXPIRED, the outcome
--       DEAD, its detail, most dead letters, milliseconds that a result is kept, milliseconds that an
--       answer waits for its gateway, 1 if this worker may have been granted leases of which it never heard;
--       then entry/attempt of each lease that it does know of
-- Returns the name that the stream gave last, so that a worker which gets too little knows what to wait for;
-- 1 if others may wait that came before that, else 0; and for each lease {entry, attempt, id, milliseconds to
-- the deadline, milliseconds since the admission, the key of its pixels}.

local worker, at_most, lease_ms, max_attempts = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local expired, dead, detail, letters = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local keep_ms, answers_ms = tonumber(ARGV[9]), tonumber(ARGV[10])
local now = clock()
local leases = {}

local function lease(entry, attempt, id)
  if not is_wanted(entry, id) then return remove(entry) end
  local deadline = redis.call('ZSCORE', DEADLINES, id) or now  -- missing only if deleted by hand
  leases[#leases + 1] = {entry, attempt, id, deadline - now, now - admitted_at(entry), pixels_of(id)}
end

sweep(now, expired, answers_ms)

local function id_of(entry)
  local found = redis.call('XRANGE', JOBS, entry, entry)[1]
  return found and field(found[2], 'id')
end

-- A reply that was lost is no attempt: nobody has begun those jobs.
if ARGV[11] == '1' then
  local known = {}
  for i = 12, #ARGV do known[ARGV[i]] = true end
  for _, pending in ipairs(redis.pcall('XPENDING', JOBS, GROUP, '-', '+', 1000, worker)) do
    local entry = pending[1]
    if not known[entry .. '/' .. pending[4]] and #leases < at_most then
      redis.call('XCLAIM', JOBS, GROUP, worker, 0, entry, 'JUSTID')  -- renews it, or it might be reclaimed below
      lease(entry, pending[4], id_of(entry))
    end
  end
end

local function reclaim(entry, attempts)
  local id = id_of(entry)
  if not is_wanted(entry, id) then
    remove(entry)
  elseif attempts >= max_attempts then
    bury(entry, id, attempts, '', dead, detail, letters, keep_ms, answers_ms)
  else
    redis.call('XCLAIM', JOBS, GROUP, worker, 0, entry)  -- raises the delivery count
    lease(entry, attempts + 1, id)
  end
end

while #leases < at_most do
  -- What is claimed or removed here is no longer idle, so each round finds others.
  local abandoned = redis.pcall('XPENDING', JOBS, GROUP, 'IDLE', lease_ms, '-', '+', at_most - #leases)
  if abandoned.err then
    redis.call('XGROUP', 'CREATE', JOBS, GROUP, '0', 'MKSTREAM')
    abandoned = {}
  end
  if #abandoned == 0 then break end
  for _, pending in ipairs(abandoned) do reclaim(pending[1], pending[4]) end
end

if #leases < at_most then
  local read = redis.call(
    'XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', at_most - #leases, 'STREAMS', JOBS, '>')
  for _, entry in ipairs(read and read[1][2] or {}) do
    lease(entry[1], 1, field(entry[2], 'id'))
  end
end

local last = field(redis.call('XINFO', 'STREAM', JOBS), 'last-generated-id')
local delivered = field(redis.call('XINFO', 'GROUPS', JOBS)[1], 'last-delivered-id')
return {last, delivered == last and 0 or 1, leases}
