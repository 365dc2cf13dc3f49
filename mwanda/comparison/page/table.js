// Tables that can be sorted: the twin of each chart, with every number in it.
const SHOWN_AT_FIRST = 200;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") Object.entries(value).forEach(([event, call]) => made.addEventListener(event, call));
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const digits = (value, places) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  return value.toFixed(Math.abs(value) >= 1000 ? 0 : places).replace("-", "−");
};

// Each kind of column: how a value is shown, and what it is sorted by.
const KINDS = {
  text: { show: (value) => element("bdi", {}, value ?? "–"), by: (value) => value ?? "" },
  ratio: { number: true, show: (value) => digits(value, 3), by: (value) => value },
  percent: { number: true, show: (value) => (value === null ? "–" : `${digits(value, 1)} %`), by: (value) => value },
  share: { number: true, show: (value) => (value === null ? "–" : `${digits(100 * value, 2)} %`), by: (value) => value },
  sparsity: { number: true, show: (value) => `${Number((100 * value).toFixed(2))} %`, by: (value) => value },
  count: { number: true, show: (value) => digits(value, 0), by: (value) => value },
  small: { number: true, show: (value) => (value === null ? "–" : value < 0.0001 ? value.toExponential(1).replace("-", "−") : value.toFixed(4)), by: (value) => value },
  score: { number: true, show: (value) => digits(value, 4), by: (value) => value },
  language: {
    show: (value) => (value === null ? "–" : element("span", {}, element("bdi", {}, data.languages[value].name), ` (${data.languages[value].code})`)),
    by: (value) => (value === null ? "" : data.languages[value].name),
  },
  runs: {
    show: (value) => element("span", {}, ...value.flatMap((run, place) => [place ? ", " : "", runLink(run)])),
    by: (value) => value.length,
  },
  folder: { show: (value) => element("a", { href: encodeURI(value.href) + "/" }, element("bdi", {}, value.name)), by: (value) => value.name },
};

function runLink(run) {
  return element("a", { href: `#run-${run}`, "aria-label": `run of seed ${data.runs[run].seed}: ${data.runs[run].name}`,
    on: { click: () => showRun(run) } }, `seed ${data.runs[run].seed}`);
}

// A table in `place`; what it was sorted by is kept when its rows change.
class Table {
  constructor(place, name) {
    Object.assign(this, { place, name, key: null, falling: false, all: false });
  }

  fill(caption, columns, rows) {
    Object.assign(this, { caption, columns, rows });
    if (!columns.some((each) => each.key === this.key)) this.key = null;
    this.draw();
  }

  sort(key) {
    this.falling = this.key === key ? !this.falling : false;
    this.key = key;
    this.draw();
    const column = this.columns.find((each) => each.key === key);
    say(`${this.name}: sorted by ${column.label}, ${this.falling ? "falling" : "rising"}`);
    this.place.querySelector(`button[data-key="${CSS.escape(key)}"]`)?.focus();
  }

  ordered() {
    if (this.key === null) return this.rows;
    const by = KINDS[this.columns.find((each) => each.key === this.key).kind].by;
    const sign = this.falling ? -1 : 1;
    const lacks = (value) => value === null || value === undefined || Number.isNaN(value);
    return [...this.rows].sort((one, two) => {
      const [first, second] = [by(one[this.key]), by(two[this.key])];
      if (lacks(first) || lacks(second)) return lacks(first) - lacks(second);
      return sign * (typeof first === "string" ? first.localeCompare(second, "en", { numeric: true }) : first === second ? 0 : first - second);
    });
  }

  draw() {
    const heads = this.columns.map(({ key, label, kind }) => {
      const own = this.key === key;
      const mark = own ? (this.falling ? " ▼" : " ▲") : "";
      return element("th", { scope: "col", class: KINDS[kind].number ? "number" : null,
        "aria-sort": own ? (this.falling ? "descending" : "ascending") : null },
      element("button", { type: "button", "data-key": key, on: { click: () => this.sort(key) } }, element("bdi", {}, label),
        element("span", { "aria-hidden": "true" }, mark)));
    });
    const rows = this.ordered();
    const few = this.all ? rows : rows.slice(0, SHOWN_AT_FIRST);
    const body = few.map((row) => element("tr", { id: row.id, tabindex: row.id ? "-1" : null }, ...this.columns.map(({ key, kind }, at) =>
      element(at ? "td" : "th", { scope: at ? null : "row", class: KINDS[kind].number ? "number" : null }, KINDS[kind].show(row[key] ?? null)))));
    const table = element("table", {}, element("caption", {}, this.caption), element("thead", {}, element("tr", {}, ...heads)),
      element("tbody", {}, ...body));
    const more = few.length < rows.length
      ? element("button", { type: "button", class: "more", on: { click: () => { this.all = true; this.draw(); } } }, `Show all ${rows.length} rows`)
      : "";
    this.place.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${this.name}` }, table), more);
  }
}
