-- What all jobs hold, in bytes.
--
-- KEYS  see common.lua

return held_bytes()
