-- Begin an upload.
--
-- KEYS  see common.lua
-- ARGV  id, owner, options, request, webhook, most bytes of an item's result, slot, ttl, milliseconds for the upload,
--       most open jobs, and most of one owner, bytes of a job without items, most bytes, and most of one owner
-- Returns {'begun'}, {'known', id, digest}, {'full' or 'share taken', 'jobs', how many}, or what `no_room` says.

local id, owner, slot = ARGV[1], ARGV[2], ARGV[7]
local now = clock()
sweep(now)

local known = slot ~= '' and redis.call('GET', SLOT .. slot)
if known and redis.call('EXISTS', JOB .. known) == 1 then return {'known', known, get(known, 'digest')} end
local most, share = tonumber(ARGV[10]), tonumber(ARGV[11])
if redis.call('ZCARD', OPEN) >= most then return {'full', 'jobs', most} end
if owner ~= '' and open_of(owner, share) >= share then return {'share taken', 'jobs', share} end
local refusal = no_room(owner, 0, ARGV[12], ARGV[13], ARGV[14])
if refusal then return refusal end

redis.call('HSET', JOB .. id, 'state', 'draft', 'owner', owner, 'options', ARGV[3], 'request', ARGV[4],
  'room', ARGV[6], 'ttl', ARGV[8], 'created', now, 'items', 0, 'scored', 0, 'failed', 0, 'fence', 0, 'hook_attempts', 0)
if ARGV[5] ~= '' then redis.call('HSET', JOB .. id, 'webhook', ARGV[5]) end
count(id, ARGV[12])
redis.call('ZADD', OPEN, '+inf', id)
keep(id, now + ARGV[9])
return {'begun'}
