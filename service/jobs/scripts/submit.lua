-- End an upload: the job exists from now on.
--
-- KEYS  see common.lua
-- ARGV  id, slot, digest
-- Returns one of {'submitted', id}, {'submitted', id of the job that the slot has got meanwhile}, {'reused'},
-- {'unknown'}.

local id, slot, digest = ARGV[1], ARGV[2], ARGV[3]
if get(id, 'state') ~= 'draft' then return {'unknown'} end

local now, ttl = clock(), tonumber(get(id, 'ttl'))
if slot ~= '' then
  local known = redis.call('GET', SLOT .. slot)
  if known and redis.call('EXISTS', JOB .. known) == 1 then
    forget(id)
    if get(known, 'digest') == digest then return {'submitted', known} end
    return {'reused'}
  end
  redis.call('SET', SLOT .. slot, id, 'PX', 2 * ttl + GRACE_MS)
  redis.call('HSET', JOB .. id, 'slot', slot)
end
redis.call('HSET', JOB .. id, 'state', 'open', 'digest', digest, 'created', now)
redis.call('ZADD', OPEN, now, id)
keep(id, now + ttl)
if redis.call('ZCARD', LEFT .. id) == 0 then end_job(id, 'done', now) end
return {'submitted', id}
