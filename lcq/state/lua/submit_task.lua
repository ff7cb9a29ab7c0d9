-- submit_task: nothing -> QUEUED, or PENDING if it is due later. The same idempotency key finds the same task.
-- KEYS  namespace
-- ARGV  id, json, digest, idempotency_key, queue, pinned_node, model, priority, user, job, max_retries,
--       cost_s, due_ms (0: now), image, why, forced ("1": an operator chose the queue), lane (of its model and type),
--       vram_mib (what it is predicted to need on a GPU)
-- RETURNS {"ok", id, status, queue} | {"duplicate", id, status, queue} | {"conflict", id}
--         | {"too_many_labelled"}
local id, json, digest, idem, queue, pinned, model, priority, user, job, max_retries, cost, due, image, why, forced,
  lane, vram = unpack(ARGV)
local known = redis.call("GET", key("idem", idem))
if not known and redis.call("EXISTS", key("task", id)) == 1 then known = id end
if known then
  local earlier = load_task(known)
  if earlier then
    if earlier.digest ~= digest then return {"conflict", known} end
    return {"duplicate", known, earlier.status, earlier.queue}
  end
end
local t = {
  json = json, digest = digest, idem = idem, queue = queue, pinned = pinned, model = model, priority = priority,
  user = user, job = job, max_retries = max_retries, cost = cost, image = image, why = why, forced = forced,
  status = (number(due) > NOW) and STATE.PENDING or STATE.QUEUED,
  rev = "1", attempt = "0", retries = "0", deaths = "0", node = "", device = "",
  submitted_ms = tostring(NOW), updated_ms = tostring(NOW), queued_ms = tostring(NOW),
}
if lane ~= model then t.lane = lane end
if too_many_labelled(owner_of(t), lane) then return {"too_many_labelled"} end
if number(vram) > 0 then t.vram = vram end
if t.status == STATE.QUEUED then rank(t) else t.due_ms = due end
local flat = {}
for field, value in pairs(t) do flat[#flat + 1] = field; flat[#flat + 1] = value end
redis.call("HSET", key("task", id), unpack(flat))
redis.call("SET", key("idem", idem), id)  -- lives as long as its task
redis.call("ZADD", key("ids"), 0, id)
if job ~= "" then
  redis.call("ZADD", key("ix", "job", job), 0, id)
  redis.call("ZADD", key("jobs"), "NX", NOW, job)
end
enter_indexes(id, t)
tally("submitted", 1)
emit_task("submit_task", id, t, {"model", model, "user", user, "job", job, "image", image, "submitted_ms", t.submitted_ms})
return {"ok", id, t.status, queue}
