-- Extend leases.
--
-- KEYS  see common.lua
-- ARGV  worker; then for each lease: entry, attempt
-- Returns for each lease 1 if it is still held, else 0.

local held = {}
for i = 2, #ARGV, 2 do
  local entry = ARGV[i]
  if attempt_of(entry, ARGV[1]) == tonumber(ARGV[i + 1]) then
    redis.call('XCLAIM', JOBS, GROUP, ARGV[1], 0, entry, 'JUSTID')  -- resets the idle time, counts no delivery
    held[#held + 1] = 1
  else
    held[#held + 1] = 0
  end
end
return held
