-- Forget a job, whatever it is about to do.
--
-- KEYS  see common.lua
-- ARGV  id, owner
-- Returns 1; 0 if the owner has no such job.

if get(ARGV[1], 'owner') ~= ARGV[2] then return 0 end
forget(ARGV[1])
return 1
