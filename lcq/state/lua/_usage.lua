-- What was used, and by whom: counters of a day (`usage:<days since 1970>`), which outlive the tasks that they are of.
-- Loaded behind the prelude. Fields are "<dimension>/<measure>/<name>": tasks and attempts are counted once by each of
-- user, job, node and model, and once by all. Times are ms, money millionths of the currency in the settings.

local TIME_OF = {cpu = "cpu_ms", serverless = "function_ms"}

-- So many attempts of a task were counted, and which end of it: an act that is taken back brings no second one.
local function billed_mark(t)
  return t.attempt .. ":" .. (t.finished_ms or t.updated_ms)
end

-- Prices are an hour's: of a node by its name or a label, and of a GPU by its name, or of any, and of a host's CPU. That of
-- a node is shared by all its slots, that of a device by its own. What they come to for one slot of the device, in millionths
-- a ms. Functions have prices of their own (settle_spend), and no part in these.
local function price_of_slot(prices, known, node, device)
  local id = node .. "\n" .. device
  if known[id] then return known[id] end
  local told = read_fields(key("node", node), "capability", "labels", "relabelled")
  local slots, all, name, kind = 1, 0, "", device == "cpu" and "cpu" or "gpu"
  for _, one in ipairs(decoded(told[1], {}).devices or {}) do
    local count = math.max(1, number(tostring(one.slots)))
    if one.kind ~= "serverless" then all = all + count end
    if one.id == device then slots, name, kind = count, tostring(one.name or ""), one.kind end
  end
  local price, by = prices.nodes[node], math.max(1, all)
  if not price then
    local labels = labels_of(told[2] or nil, told[3] or nil)
    for _, one in ipairs(prices.labels) do
      if not price and labels[one[1]] == one[2] then price = one[3] end
    end
  end
  if kind == "serverless" then price = 0 end
  if not price then
    by = slots
    if kind == "cpu" then price = prices.cpu end
    for _, one in ipairs(kind == "cpu" and {} or prices.gpus) do
      if not price and name:lower():find(one[1]:lower(), 1, true) then price = one[2] end
    end
    if not price and kind ~= "cpu" then price = prices.gpu end
  end
  known[id] = {kind = kind, price = (price or 0) / by / 3.6}
  return known[id]
end

-- Counts what has not been counted of a task that has ended. `sums` as write_sums takes it; `days`: which it writes.
local function bill(id, t, prices, known, sums, days)
  local mark = billed_mark(t)
  if t.billed == mark then return end
  local before = number((t.billed or ""):match("^(%d+):"))
  local function add(at_ms, node, measure, by)
    if by == 0 then return end
    local day = math.floor(at_ms / 86400000)
    local name = key("usage", day)
    days[day] = days[day] or redis.call("HLEN", name)
    local function put(dimension, whose)
      local field = dimension .. "/" .. measure .. "/" .. whose
      if days[day] > MOST_NAMES and redis.call("HEXISTS", name, field) == 0 then
        field = dimension .. "/" .. measure .. "/(others)"
      end
      add_to(sums, name, field, by)
    end
    put("all", "")
    put("user", t.user or "")
    if (t.job or "") ~= "" then put("job", t.job) end
    if (t.model or "") ~= "" then put("model", t.model) end
    if (node or "") ~= "" then put("node", node) end
  end
  for n = before + 1, number(t.attempt) do
    local record = attempt_record(id, n)
    if record and record.outcome ~= "damaged" then
      local ended = number(tostring(record.ended_ms or NOW))
      local ms = math.max(0, ended - number(tostring(record.started_ms or ended)))
      local slot = price_of_slot(prices, known, record.node or "", record.device or "")
      if not record.away then add(ended, record.node, "attempts", 1) end  -- else it has reached nobody who could try
      local kind = type(record.spend) == "table" and "serverless" or slot.kind  -- the node may be forgotten
      local is_nothing = record.away and kind == "serverless" and number(tostring(record.spent or 0)) == 0
      if not is_nothing then add(ended, record.node, TIME_OF[kind] or "gpu_ms", ms) end
      -- What a function was paid is here already (report_spend), but of those before that was so: `spent`, `paid`.
      local paid = record.spent or record.paid
      if not (type(record.spend) == "table" and record.spend.on_day) then
        add(ended, record.node, "cost", paid and math.floor(number(tostring(paid))) or math.floor(ms * slot.price + 0.5))
      end
      if record.counted then add(ended, record.node, "retries", 1) end
    end
  end
  if (t.billed or ""):match(":(.*)$") ~= (t.finished_ms or t.updated_ms) then
    local at = number(t.finished_ms or t.updated_ms)
    add(at, t.node, t.status, 1)
    if t.status == STATE.COMPLETED then
      local result = decoded(t.result, {})
      add(at, t.node, "pixels", number(tostring(result.width)) * number(tostring(result.height)))
    end
  end
end

local function keep_usage(sums, days, keep_s)
  write_sums(sums)
  for day in pairs(days) do redis.call("EXPIRE", key("usage", day), math.max(1, math.floor((day + 1) * 86400 + keep_s - NOW / 1000))) end
end
