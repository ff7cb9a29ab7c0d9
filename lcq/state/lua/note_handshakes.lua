-- note_handshakes: who has connected of late, and how many were not let in, and why.
-- KEYS  namespace
-- ARGV  how many reasons follow; of each its name, how often, who was the last; then keys that came, each with from where
-- RETURNS {"ok"}
local reasons, place = tonumber(ARGV[1]), 2
local book, counts = key("access"), key("handshakes")
for _ = 1, reasons do
  redis.call("HINCRBY", counts, ARGV[place], ARGV[place + 1])
  redis.call("HSET", counts, "last " .. ARGV[place], string.format("%.0f %s", NOW, ARGV[place + 2]))
  place = place + 3
end
while place < #ARGV do
  local record = decoded(redis.call("HGET", book, ARGV[place]) or "", nil)
  if record then
    record.seen_ms, record.address = NOW, ARGV[place + 1]
    redis.call("HSET", book, ARGV[place], cjson.encode(record))
  end
  place = place + 2
end
return {"ok"}
