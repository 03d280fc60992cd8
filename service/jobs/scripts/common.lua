-- What every script shares; it is put in front of each. Jobs in Redis:
--
--   {clicv2}:bulk:totals           HASH    bytes -> what all jobs hold; bytes:<owner> -> what those of an owner do
--   {clicv2}:bulk:open             ZSET    job that has not ended -> until when somebody drives it; an instant in the
--                                          past: since when nobody does; infinity: its upload is under way
--   {clicv2}:bulk:expiry           ZSET    job -> when it is too old: an upload and an ended job are forgotten then,
--                                          an open job ends as expired
--   {clicv2}:bulk:hooks            ZSET    job whose webhook is not settled -> when to deliver it
--   {clicv2}:bulk:job:<id>         HASH    state: draft, open, done, expired; owner, options, request, webhook;
--                                          created, ended, ttl in milliseconds; items, scored, failed, event (number
--                                          of the last one); bytes; room: what an item's result needs at most;
--                                          fence, and driver while somebody drives it; slot, digest;
--                                          hook: pending, delivered, failed; hook_attempts, hook_detail
--   {clicv2}:bulk:items:<id>       HASH    place of an item without a result -> JSON: name, url or size, and the
--                                          bytes that are counted for it
--   {clicv2}:bulk:left:<id>        ZSET    the same places -> how many drivers began the item and did not finish it
--   {clicv2}:bulk:picture:<id>:<place>     STRING  an item's bytes, until it has a result
--   {clicv2}:bulk:results:<id>     LIST    JSON, in the order in which they were written
--   {clicv2}:bulk:events:<id>      STREAM  entry n-0 is event n: kind, summary, scored, failed
--   {clicv2}:bulk:slot:<digest>    STRING  the job that an Idempotency-Key made
--
-- What is large expires by itself, a while after the sweep should have taken it away. Records never do: they say what
-- is counted. Every instant is in milliseconds of this server's clock; no host's clock is ever compared with it.
--
-- A full Redis (noeviction) refuses a command that needs memory, but only as a script's first write. So a script that
-- must succeed, since it frees memory, begins with a write that needs none.

local TOTALS, OPEN, EXPIRY, HOOKS, JOB, ITEMS, LEFT, PICTURE, RESULTS, EVENTS, SLOT = unpack(KEYS)
local GRACE_MS = 60000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function get(id, field)
  return redis.call('HGET', JOB .. id, field) or nil
end

local function held_bytes()
  return tonumber(redis.call('HGET', TOTALS, 'bytes') or '0')
end

-- Count bytes for a job, or fewer of them.
local function count(id, bytes)
  redis.call('HINCRBY', JOB .. id, 'bytes', bytes)
  redis.call('HINCRBY', TOTALS, 'bytes', bytes)
  redis.call('HINCRBY', TOTALS, 'bytes:' .. (get(id, 'owner') or ''), bytes)
end

-- How many jobs of an owner have not ended. Nobody looks at each while there are fewer than `share` in all.
local function open_of(owner, share)
  if redis.call('ZCARD', OPEN) < share then return 0 end
  local found = 0
  for _, id in ipairs(redis.call('ZRANGE', OPEN, 0, -1)) do
    if get(id, 'owner') == owner then found = found + 1 end
  end
  return found
end

-- Why a job of an owner that holds so many bytes cannot hold so many more: {'too large', most of one job},
-- {'full' or 'share taken', 'job-bytes', most}; nothing if it can. Callers who are not told apart have no id, and no
-- share.
local function no_room(owner, held, more, most, share)
  most, share = tonumber(most), owner == '' and tonumber(most) or tonumber(share)
  if held + more > share then return {'too large', share} end
  if held_bytes() + more > most then return {'full', 'job-bytes', most} end
  local of_owner = tonumber(redis.call('HGET', TOTALS, 'bytes:' .. owner) or '0')
  if of_owner + more > share then return {'share taken', 'job-bytes', share} end
end

-- Let a job become so old, and what it has of large things a little older.
local function keep(id, until_ms)
  redis.call('ZADD', EXPIRY, until_ms, id)
  for _, key in ipairs({ITEMS, LEFT, RESULTS, EVENTS}) do
    redis.call('PEXPIREAT', key .. id, until_ms + GRACE_MS)
  end
end

-- Keys that have been made since are kept for as long as the others.
local function keep_on(id)
  keep(id, tonumber(redis.call('ZSCORE', EXPIRY, id) or clock()))  -- missing only if deleted by hand
end

local function drop_pictures(id)
  for _, place in ipairs(redis.call('ZRANGE', LEFT .. id, 0, -1)) do
    redis.call('UNLINK', PICTURE .. id .. ':' .. place)
  end
end

local function forget(id)
  redis.call('ZREM', OPEN, id)
  redis.call('ZREM', EXPIRY, id)
  redis.call('ZREM', HOOKS, id)
  drop_pictures(id)
  local slot = get(id, 'slot')
  if slot and redis.call('GET', SLOT .. slot) == id then redis.call('DEL', SLOT .. slot) end
  local bytes, total = tonumber(get(id, 'bytes') or '0'), 'bytes:' .. (get(id, 'owner') or '')
  redis.call('UNLINK', JOB .. id, ITEMS .. id, LEFT .. id, RESULTS .. id, EVENTS .. id)
  if redis.call('ZCARD', EXPIRY) == 0 then
    redis.call('DEL', TOTALS)  -- nothing is held, whatever was counted: somebody may have deleted keys by hand
  else
    redis.call('HINCRBY', TOTALS, 'bytes', 0 - bytes)
    if redis.call('HINCRBY', TOTALS, total, 0 - bytes) <= 0 then redis.call('HDEL', TOTALS, total) end
  end
end

local function append_event(id, kind, summary)
  local number = redis.call('HINCRBY', JOB .. id, 'event', 1)
  redis.call('XADD', EVENTS .. id, number .. '-0', 'kind', kind, 'summary', summary,
    'scored', get(id, 'scored') or 0, 'failed', get(id, 'failed') or 0)
end

-- An item gets its end, and what was counted for it gives way to its result.
local function append_result(id, good, counted, result, summary)
  redis.call('RPUSH', RESULTS .. id, result)
  redis.call('HINCRBY', JOB .. id, good == '1' and 'scored' or 'failed', 1)
  count(id, #result - counted)
  append_event(id, 'item', summary)
end

local function end_job(id, state, now)
  redis.call('ZREM', OPEN, id)
  drop_pictures(id)
  local counted = 0
  for _, item in ipairs(redis.call('HVALS', ITEMS .. id)) do
    counted = counted + cjson.decode(item).counted
  end
  redis.call('UNLINK', ITEMS .. id, LEFT .. id)
  redis.call('HDEL', JOB .. id, 'driver')
  redis.call('HSET', JOB .. id, 'state', state, 'ended', now)
  count(id, 0 - counted)  -- and not -counted, which may be -0
  append_event(id, 'end', state)
  keep(id, now + get(id, 'ttl'))
  if get(id, 'webhook') then
    redis.call('HSET', JOB .. id, 'hook', 'pending')
    redis.call('ZADD', HOOKS, now, id)
  end
end

-- Whether a lease is held: nobody has claimed the job since, and it has not ended.
local function is_held(id, fence)
  return get(id, 'state') == 'open' and get(id, 'fence') == fence
end

-- Take away a little of what is too old; whoever comes next takes more.
local function sweep(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, 10)) do
    if get(id, 'state') == 'open' then end_job(id, 'expired', now) else forget(id) end
  end
end
