-- copy_keys: reads other keys than those of tasks whole, for a backup.
-- KEYS  namespace
-- ARGV  names, without the namespace
-- RETURNS {"ok", then of each that there is: name, type, ms to live (-1: for ever), value}
local answer = {"ok"}
for _, name in ipairs(ARGV) do copy_key(name, answer) end
return answer
