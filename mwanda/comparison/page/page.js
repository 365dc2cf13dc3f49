// Builds the page once, and draws it anew whenever a choice changes.
const byId = (id) => document.getElementById(id);
const narrow = window.matchMedia("(max-width: 40rem)");
const tables = new Map();
const views = new Map();

function say(text) {
  byId("status").textContent = text;
}

// Fill a list of choices, keeping what was chosen where it is still there.
function choices(id, values, key, labels = values) {
  const list = byId(id);
  if (!values.some((each) => String(each) === String(state[key]))) state[key] = values[0];
  list.replaceChildren(...values.map((value, place) => element("option", { value }, labels[place])));
  list.value = state[key];
}

function selector(id, label) {
  return element("label", {}, label, element("select", { id }));
}

const SELECTORS = { sort: "Sort languages by", "paired-method": "Method", "matrix-method": "Method", one: "First run", two: "Second run" };

function build() {
  for (const section of SECTIONS) {
    byId("contents").append(element("li", {}, element("a", { href: `#${section.id}` }, section.title)));
    const controls = (section.controls || []).map((id) => selector(id, SELECTORS[id]));
    const charts = Object.entries(section.charts || {}).map(([name, label]) =>
      element("div", { class: "chart", id: `chart-${name}`, tabindex: "0", role: "group", "aria-label": `${label}. The table below has the same numbers.` },
        element("div", { role: "img", "aria-label": label })));
    const table = element("div", { id: `table-${section.id}` });
    const twin = charts.length ? element("details", {}, element("summary", {}, `Table: ${section.title}`), table) : table;
    byId("main").append(element("section", { id: section.id, "aria-labelledby": `${section.id}-title` },
      element("h2", { id: `${section.id}-title` }, section.title), element("p", { class: "note" }, section.note), element("p", { class: "quiet", id: `note-${section.id}` }),
      controls.length ? element("div", { class: "controls" }, ...controls) : null, ...charts, twin));
    tables.set(section.id, new Table(table, section.title));
  }
  if (data.unfinished.length) {
    const place = element("div", {});
    byId("contents").append(element("li", {}, element("a", { href: "#unfinished" }, "Not complete")));
    byId("main").append(element("section", { id: "unfinished", "aria-labelledby": "unfinished-title" }, element("h2", { id: "unfinished-title" }, "Not complete"),
      element("p", { class: "note" }, "These runs are in no number above."), place));
    new Table(place, "runs that are not complete").fill("Runs without results to compare",
      [column("name", "run"), column("status", "status"), column("reason", "why")], data.unfinished);
  }
  byId("warnings").append(...data.warnings.map((each) => element("p", { class: "warning" }, element("strong", {}, "Careful: "), each)));
  byId("sort").append(...[["family", "family, then damage"], ["damage", "damage"], ["name", "name"]].map(([value, label]) => element("option", { value }, label)));
  for (const id of ["one", "two"]) choices(id, data.runs.map((_, place) => place), id, data.runs.map((run) => run.name));
  choices("protocol", data.protocols.map((_, place) => place), "protocol", data.protocols.map((each) => each.name));
  byId("label-protocol").hidden = data.protocols.length < 2;
  const keys = { "paired-method": "paired", "matrix-method": "matrices" };
  for (const id of ["protocol", "sparsity", "family", "script", "level", "seen", "sort", "paired-method", "matrix-method", "one", "two"]) {
    const key = keys[id] || id;
    byId(id).addEventListener("change", (event) => {
      state[key] = ["protocol", "sparsity", "one", "two"].includes(key) ? Number(event.target.value) : event.target.value;
      if (key === "protocol") chooseProtocol();
      draw();
    });
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    Object.assign(state, { family: "", script: "", level: "", seen: "" });
    for (const id of ["family", "script", "level", "seen"]) byId(id).value = "";
    chooseProtocol();
    draw();
  });
  byId("filter-box").open = !narrow.matches;
  narrow.addEventListener("change", draw);
}

function chooseProtocol() {
  const protocol = data.protocols[state.protocol];
  byId("headline").textContent = protocol.findings[0] || "Nothing was measured.";
  byId("findings").replaceChildren(...protocol.findings.slice(1).map((each) => element("li", {}, each)));
  const members = ofProtocol();
  const runs = members.reduce((sum, each) => sum + each.runs.length, 0);
  byId("counts").textContent = `${runs} runs, ${allMethods().length} methods, ${protocol.languages.length} languages; measured on ${protocol.name}. ${protocol.common ? `All runs: ${protocol.common}. ` : ""}`
    + "Intervals and p-values say which sentences were drawn, not which languages or calibration texts were chosen; "
    + "the best method is chosen by the numbers that judge it.";
  const sparsities = unique(members.map((each) => each.sparsity)).sort((one, two) => one - two);
  const most = (value) => members.filter((each) => each.sparsity === value).length;
  const usual = [...sparsities].sort((one, two) => most(two) - most(one) || Math.abs(one - 0.5) - Math.abs(two - 0.5))[0];
  if (!sparsities.includes(state.sparsity)) state.sparsity = usual;
  choices("sparsity", sparsities, "sparsity", sparsities.map(KINDS.sparsity.show));
  const codes = protocol.languages.map((each) => data.languages[each]);
  for (const [id, label] of [["family", "all families"], ["script", "all scripts"], ["level", "all levels"]]) {
    const values = unique(codes.map((each) => each[id])).sort();
    choices(id, ["", ...values], id, [label, ...values]);
  }
  const methods = ranked();
  const first = baselines().slice(0, MOST_METHODS - 1);
  const chosen = new Set([...first, ...methods.filter((each) => !first.includes(each)).slice(0, MOST_METHODS - first.length)]);
  state.methods = new Set(methods.filter((each) => chosen.has(each)));
  byId("methods").replaceChildren(...methods.map((method) => element("label", {}, element("input", { type: "checkbox", value: method, checked: state.methods.has(method),
    on: { change: () => { state.methods = new Set([...byId("methods").querySelectorAll("input:checked")].map((each) => each.value)); draw(); } } }),
  element("span", {}, element("bdi", {}, method), baselines().includes(method) ? " (baseline)" : ""))));
}

function draw() {
  const filters = [state.family, state.script, state.level, state.seen].filter(Boolean);
  const said = `${languages().length} languages, ${state.methods.size} of ${allMethods().length} methods${filters.length ? `; ${filters.join(", ")}` : ""}`;
  byId("filter-state").textContent = `· ${said}`;
  for (const section of SECTIONS) {
    const found = section.rows();
    const empty = found.nothing || (found.rows.length ? "" : "Nothing is left by these filters.");
    const part = byId(section.id);
    part.querySelectorAll(".chart, details, .controls").forEach((each) => { each.hidden = Boolean(empty) && !(each.matches(".controls") && section.id === "difference"); });
    byId(`table-${section.id}`).hidden = Boolean(empty);
    byId(`note-${section.id}`).textContent = empty || found.note || (section.at ? `At ${sectionAt()}.` : "");
    if (empty) continue;
    tables.get(section.id).fill(`${section.title}${section.at ? `, ${sectionAt()}` : ""} (${said})`, found.columns, found.rows);
    for (const [name, rows] of Object.entries(found.charts || {})) drawChart(name, rows);
  }
  say(said);
}

// A line of several methods (sparsity by block) looks as the first of them does elsewhere.
function look(range, method, own) {
  const place = [...state.methods].findIndex((each) => method === each || method.startsWith(`${each} = `));
  return range[(place < 0 ? own.indexOf(method) : place) % range.length];
}

// Colours, shapes and dashes go by the method's place, so that a method looks the same in every chart.
function withRows(specification, rows) {
  const made = structuredClone(specification);
  made.data.find((each) => each.name === "rows").values = rows;
  if (narrow.matches) { // or names leave no room for what they name, and end outside
    made.config.axis.labelLimit = 150;
    for (const legend of made.legends || []) legend.labelLimit = 280;
  }
  const own = unique(rows.map((row) => row.method));
  const methods = own.every((each) => state.methods.has(each)) ? [...state.methods].filter((each) => own.includes(each)) : own;
  for (const scale of made.scales || []) {
    if (["color", "shape", "strokeDash"].includes(scale.name) && JSON.stringify(scale.domain).includes('"method"')) {
      Object.assign(scale, { domain: methods, range: methods.map((each) => look(scale.range, each, own)) });
    }
  }
  return made;
}

async function drawChart(name, rows) {
  const place = byId(`chart-${name}`).firstChild;
  views.get(name)?.finalize();
  views.delete(name);
  const turn = (Number(place.dataset.turn) || 0) + 1;
  place.dataset.turn = turn;
  const made = element("div", { "aria-hidden": "true" }); // its parent is the image, and has a name
  place.replaceChildren(made);
  const view = await vegaEmbed(made, withRows(specifications[name], rows), { renderer: "svg", ast: true, actions: false, mode: "vega", defaultStyle: false,
    tooltip: { disableDefaultStyle: true, sanitize: (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;") },
    loader: { load: () => Promise.reject(new Error("this page makes no request")) } });
  if (Number(place.dataset.turn) === turn) views.set(name, view);
  else view.finalize();
}

// Go to a run in the table of runs, and take it as the second of the two that are compared.
function showRun(run) {
  const table = tables.get("runs");
  table.all = true;
  table.draw();
  state.two = run;
  byId("two").value = run;
  document.querySelectorAll("tr.target").forEach((each) => each.classList.remove("target"));
  const row = byId(`run-${run}`);
  row?.classList.add("target");
  row?.focus();
  draw();
  byId(`run-${run}`)?.classList.add("target");
}

build();
chooseProtocol();
draw();
