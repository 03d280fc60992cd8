-- Begin an upload.
--
-- KEYS  see common.lua
-- ARGV  id, owner, options, request, webhook, most bytes of an item's result, slot, ttl, milliseconds for the upload,
--       most open jobs, most bytes, bytes of a job without items
-- Returns one of {'begun'}, {'known', id, digest}, {'too many jobs'}, {'too many bytes'}.

local id, slot = ARGV[1], ARGV[7]
local now = clock()
sweep(now)

local known = slot ~= '' and redis.call('GET', SLOT .. slot)
if known and redis.call('EXISTS', JOB .. known) == 1 then return {'known', known, get(known, 'digest')} end
if redis.call('ZCARD', OPEN) >= tonumber(ARGV[10]) then return {'too many jobs'} end
if held_bytes() + ARGV[12] > tonumber(ARGV[11]) then return {'too many bytes'} end

redis.call('HSET', JOB .. id, 'state', 'draft', 'owner', ARGV[2], 'options', ARGV[3], 'request', ARGV[4],
  'room', ARGV[6], 'ttl', ARGV[8], 'created', now, 'items', 0, 'scored', 0, 'failed', 0, 'fence', 0, 'hook_attempts', 0)
if ARGV[5] ~= '' then redis.call('HSET', JOB .. id, 'webhook', ARGV[5]) end
count(id, ARGV[12])
redis.call('ZADD', OPEN, '+inf', id)
keep(id, now + ARGV[9])
return {'begun'}
