-- Store an outcome, answer who waits, and acknowledge; unless the lease was lost.
--
-- KEYS  see common.lua
-- ARGV  worker, entry, attempt, id, outcome, milliseconds that it is kept for who asks again, milliseconds
--       that an answer waits for its gateway, most dead letters (0: this is none), detail of a dead letter
-- Returns 1; 0 if it was fenced: another worker holds the lease, or nobody wants the job any more.

local entry, attempt, id, outcome = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local keep_ms, answers_ms, letters = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local fence = entry .. '/' .. attempt

if attempt_of(entry, ARGV[1]) ~= tonumber(attempt) then
  -- A worker whose connection broke asks twice; it is told what its first finish did.
  return redis.call('HGET', RESULT .. id, 'fence') == fence and 1 or 0
end
if letters > 0 then
  bury(entry, id, attempt, fence, outcome, ARGV[9], letters, keep_ms, answers_ms)
else
  finish(entry, id, fence, outcome, keep_ms, answers_ms)
end
return 1
