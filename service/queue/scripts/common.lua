-- What every script shares; it is put in front of each. The queue in Redis:
--
--   {clicv2}:jobs               STREAM  one entry for each job that is admitted and not finished, so XLEN is
--     1763650000123-0                   what the capacity counts. The entry's name is the instant of admission.
--       id  ab12...
--     group `workers`                   what is pending is leased: by its consumer, as attempt number
--                                       `delivery count`, last renewed `idle` milliseconds ago
--   {clicv2}:deadlines          ZSET    job id -> deadline: who is expired is found without reading pixels
--   {clicv2}:job:<id>           HASH    entry -> its name in the stream; pixels -> the caller whose pixels it
--                                       has; and for each caller that waits <gateway>/<number>[/<traceparent>] -> <gateway>
--   {clicv2}:pixels:<caller>    STRING  see wire.py; expires a while after the deadline
--   {clicv2}:workers            ZSET    worker that is ready -> until when this is believed
--   {clicv2}:answers:<gateway>  STREAM  caller, outcome: what the gateway has not read yet, and a little that it
--                                       has; expires
--   {clicv2}:result:<id>        HASH    fence -> which lease finished the job; outcome -> what it found,
--                                       for who asks again; expires
--   {clicv2}:dead               STREAM  dead letters: id, detail, attempts, pixels; the oldest give way
--
-- jobs, deadlines and job:<id> are made in one script and go in one script: none outlives the others. Pixels
-- come first, and go with them. They never pass through a script, in which 0.2 MB cost 0.5 ms instead of 0.1.
-- Every instant is in milliseconds of this server's clock; no host's clock is ever compared with it.
--
-- A full Redis (noeviction) refuses a command that needs memory, but only as a script's first write. So a
-- script that must succeed, since it frees memory, begins with a write that needs none. A full Redis refuses
-- the pixels, and what has no pixels is not admitted.

local JOBS, DEADLINES, WORKERS, DEAD, JOB, PIXELS, RESULT, ANSWERS = unpack(KEYS)
local GROUP = 'workers'

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function admitted_at(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- A stream entry's field; nil if it has none of this name.
local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- The delivery count, if `worker` holds the entry's lease; else nil.
local function attempt_of(entry, worker)
  local pending = redis.pcall('XPENDING', JOBS, GROUP, entry, entry, 1)  -- an error: the group is lost
  local lease = pending[1]
  if lease and lease[2] == worker then return lease[4] end
end

-- The key of a job's pixels; nil if the job is lost.
local function pixels_of(id)
  local caller = redis.call('HGET', JOB .. id, 'pixels')
  if caller then return PIXELS .. caller end
end

-- Is the entry a job that somebody waits for?
local function is_wanted(entry, id)
  return id and redis.call('HGET', JOB .. id, 'entry') == entry
end

-- Take a job, or an entry that is none, out of the queue.
local function remove(entry, id)
  redis.call('XACK', JOBS, GROUP, entry)
  redis.call('XDEL', JOBS, entry)
  if id then
    local pixels = pixels_of(id)
    if pixels then redis.call('UNLINK', pixels) end
    redis.call('DEL', JOB .. id)
    redis.call('ZREM', DEADLINES, id)
  end
end

-- End a job that is wanted: each of its callers gets the outcome.
local function settle(entry, id, outcome, answers_ms)
  local callers = redis.call('HGETALL', JOB .. id)
  remove(entry, id)
  for i = 1, #callers, 2 do
    if callers[i] ~= 'entry' and callers[i] ~= 'pixels' then
      local answers = ANSWERS .. callers[i + 1]
      redis.call('XADD', answers, '*', 'caller', callers[i], 'outcome', outcome)
      redis.call('PEXPIRE', answers, answers_ms)  -- a gateway that is gone reads nothing any more
    end
  end
end

-- Settle and remember, so that who asks again gets the same; `keep_ms` 0: they are to try again.
local function finish(entry, id, fence, outcome, keep_ms, answers_ms)
  settle(entry, id, outcome, answers_ms)
  local result = RESULT .. id
  redis.call('HSET', result, 'fence', fence)
  if keep_ms > 0 then
    redis.call('HSET', result, 'outcome', outcome)
  else
    redis.call('HDEL', result, 'outcome')
  end
  redis.call('PEXPIRE', result, keep_ms > 0 and keep_ms or answers_ms)
end

-- Finish a job that nobody can do, and set it aside.
local function bury(entry, id, attempts, fence, outcome, detail, letters, keep_ms, answers_ms)
  local key = pixels_of(id)
  local pixels = key and redis.call('GET', key)
  finish(entry, id, fence, outcome, keep_ms, answers_ms)
  redis.call('XADD', DEAD, 'MAXLEN', '=', letters, '*', 'id', id, 'detail', detail, 'attempts', attempts,
    'pixels', pixels or '')
end

-- End every job whose deadline has passed.
local function sweep(now, expired, answers_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now)) do
    local entry = redis.call('HGET', JOB .. id, 'entry')
    if entry then
      settle(entry, id, expired, answers_ms)
    else
      redis.call('ZREM', DEADLINES, id)  -- somebody deleted keys by hand; nobody is to trip over that for ever
    end
  end
end
