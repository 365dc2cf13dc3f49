// What each part of the page shows: rows for its charts, and a table with the same numbers.
const column = (key, label, kind = "text") => ({ key, label, kind });
const percentOf = (ratio) => 100 * (ratio - 1);
const sectionAt = () => `${KINDS.sparsity.show(state.sparsity)} sparsity`;
const nothing = (reason) => ({ nothing: reason });

function curves() {
  const rows = shown().flatMap((each) => {
    const chosen = languagesOf(each);
    const total = overSeeds(each, chosen);
    if (!total) return [];
    const worst = chosen.reduce((one, two) => (ratioOf(each, two) > ratioOf(each, one) ? two : one));
    const hurt = each.runs.map((run) => chosen.filter((code) => data.runs[run].hurt.includes(code)).length / chosen.length);
    return [{ method: each.method, sparsity: each.sparsity, ratio: total.mean, deviation: total.deviation, worst,
      worst_ratio: ratioOf(each, worst), hurt: average(hurt), languages: chosen.length, runs: each.runs }];
  });
  const drawn = rows.filter((row) => Number.isFinite(row.ratio)).map((row) => ({
    ...row, low: Math.max(row.ratio - (row.deviation || 0), row.ratio / 10), high: row.ratio + (row.deviation || 0),
    tip: `${row.method}\n${KINDS.sparsity.show(row.sparsity)} sparsity: ${digits(row.ratio, 3)}` }));
  const dense = unique(drawn.map((row) => row.method)).map((method) => ({ method, sparsity: 0, ratio: 1, low: 1, high: 1, tip: "dense model" }));
  return {
    charts: { curves: [...dense, ...drawn] },
    columns: [column("method", "method"), column("sparsity", "sparsity", "sparsity"), column("ratio", "ratio", "ratio"),
      column("deviation", "± over seeds", "ratio"), column("worst", "worst language", "language"), column("worst_ratio", "its ratio", "ratio"),
      column("hurt", "languages significantly hurt", "share"), column("languages", "languages", "count"), column("runs", "runs", "runs")],
    rows,
  };
}

function heat() {
  const members = atSparsity();
  const codes = languages().filter((code) => members.some((each) => languagesOf(each).includes(code)));
  const value = (each, code) => (languagesOf(each).includes(code) ? ratioOf(each, code) : null);
  const damage = (code) => Math.max(...members.map((each) => value(each, code) ?? 0));
  const byName = (one, two) => data.languages[one].name.localeCompare(data.languages[two].name, "en");
  const order = [...codes].sort(state.sort === "name" ? byName : (one, two) => damage(two) - damage(one) || byName(one, two));
  const families = unique(state.sort === "family" ? codes.map((code) => data.languages[code].family) : [""]).sort();
  const finite = members.flatMap((each) => order.map((code) => value(each, code))).filter((each) => each && Number.isFinite(each));
  const largest = Math.max(Math.log(1.05), ...finite.map(Math.log));
  const drawn = members.flatMap((each) => order.map((code, place) => {
    const ratio = value(each, code);
    const language = data.languages[code];
    const group = state.sort === "family" ? language.family : "";
    return { method: each.method, name: label(code), order: place, group, group_order: families.indexOf(group),
      ...(ratio === null ? { fill: "transparent", ink: "var(--quiet)" } : shade(Math.log(ratio) / largest)),
      text: ratio === null ? "–" : digits(ratio, ratio < 100 ? 2 : 0), tip: `${language.name}\n${each.method}: ${digits(ratio, 3)}` };
  }));
  return {
    charts: { heat: drawn },
    columns: [column("language", "language", "language"), column("family", "family"), column("script", "script"), column("level", "resource level"),
      ...members.map((each, place) => column(`m${place}`, each.method, "ratio"))],
    rows: order.map((code) => ({ language: code, family: data.languages[code].family, script: data.languages[code].script,
      level: data.languages[code].level, ...Object.fromEntries(members.map((each, place) => [`m${place}`, value(each, code)])) })),
  };
}
const code_ = (language) => data.languages[language].code;
const LONGEST_NAME = 30; // with which there is room for the code behind it
const shortened = (name) => (name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 1)}…` : name);
const label = (language) => (narrow.matches ? code_(language) : `${shortened(data.languages[language].name)} (${code_(language)})`);

function pairedRows() {
  const members = atSparsity().filter((each) => each.paired);
  if (!members.length) return nothing(`No method at ${sectionAt()} could be paired with a baseline run, sentence by sentence.`);
  choices("paired-method", members.map((each) => each.method), "paired");
  const each = members.find((one) => one.method === state.paired);
  const allowed = languagesOf(each);
  const rows = each.paired.languages.filter(([code]) => allowed.includes(code)).map(([code, log, low, high, p, units, significant]) => ({
    language: code, difference: percentOf(exponential(log ?? Infinity)), low: percentOf(exponential(low ?? -Infinity)), high: percentOf(exponential(high ?? Infinity)),
    p, units, verdict: significant ? (log < 0 ? "better" : "worse") : "not distinguishable",
    runs: [...each.runs, ...data.configurations[each.baseline].runs] })).sort((one, two) => one.difference - two.difference);
  return {
    note: `${each.method} against ${data.configurations[each.baseline].method} at ${sectionAt()}, ${each.paired.seeds.length} ${each.paired.seeds.length === 1 ? "seed" : "seeds"}.`,
    charts: { paired: rows.filter((row) => Number.isFinite(row.low + row.high)).map((row, order) => ({ ...row, order, name: label(row.language),
      tip: `${data.languages[row.language].name}: ${digits(row.difference, 1)} %\n95 % interval ${digits(row.low, 1)} to ${digits(row.high, 1)} %\n${row.verdict}` })) },
    columns: [column("language", "language", "language"), column("difference", "difference", "percent"), column("low", "low", "percent"),
      column("high", "high", "percent"), column("p", "p (Holm)", "small"), column("verdict", "verdict"), column("units", "sentences", "count"), column("runs", "runs", "runs")],
    rows,
  };
}

function layersRows() {
  const lines = new Map();
  for (const each of atSparsity()) lines.set(each.layers, [...(lines.get(each.layers) || []), each]);
  const rows = [...lines.values()].flatMap((same) => {
    const method = same.map((each) => each.method).slice(0, 4).join(" = ") + (same.length > 4 ? " = …" : "");
    return data.shapes[same[0].layers].map(([target, achieved], block) => ({ method, schedule: same[0].schedule, block, target, achieved,
      runs: same.map((each) => each.runs[0]), tip: `${method}\nblock ${block}: ${digits(100 * achieved, 2)} %` }));
  });
  return { charts: { layers: rows },
    columns: [column("method", "method"), column("schedule", "schedule"), column("block", "block", "count"), column("target", "target", "share"),
      column("achieved", "achieved", "share"), column("runs", "first run", "runs")], rows };
}

function matrixRows() {
  const members = atSparsity().filter((each) => data.shapes[each.matrices].length);
  if (!members.length) return nothing("No run describes its matrices.");
  choices("matrix-method", members.map((each) => each.method), "matrices");
  const each = members.find((one) => one.method === state.matrices);
  const own = data.shapes[each.matrices];
  const values = own.map(([, , share]) => share);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const rows = own.map(([kind, block, share]) => ({ kind, block, share, runs: [each.runs[0]] }));
  return { charts: { matrices: rows.map((row) => ({ ...row, ...shade(high - low < 1e-4 ? 0.15 : 0.75 * (row.share - low) / (high - low)),
    text: digits(100 * row.share, 0), tip: `${row.kind}, block ${row.block}: ${digits(100 * row.share, 2)} % zeros` })) },
  columns: [column("kind", "matrix"), column("block", "block", "count"), column("share", "share of zero weights", "share"), column("runs", "first run", "runs")], rows };
}

function seenRows() {
  const rows = atSparsity().map((each) => {
    const [seen, unseen] = ["seen", "unseen"].map((which) => languagesOf(each, which));
    return { method: each.method, seen: overSeeds(each, seen)?.mean ?? null, unseen: overSeeds(each, unseen)?.mean ?? null,
      seen_n: seen.length, unseen_n: unseen.length, runs: each.runs };
  });
  if (!rows.some((row) => row.unseen_n)) return nothing("Every language shown was in the calibration text: nothing is unseen.");
  return { charts: { seen: rows.flatMap((row) => [["seen", "seen in calibration"], ["unseen", "unseen"]].filter(([key]) => Number.isFinite(row[key] ?? NaN)).map(([key, which]) => ({
    method: row.method, which, ratio: row[key], tip: `${row.method}\n${which}: ${digits(row[key], 3)}` }))) },
  columns: [column("method", "method"), column("seen", "ratio, seen", "ratio"), column("seen_n", "languages seen", "count"),
    column("unseen", "ratio, unseen", "ratio"), column("unseen_n", "languages unseen", "count"), column("runs", "runs", "runs")], rows };
}

function costRows() {
  const mean = (values) => { const known = values.filter((each) => each !== null && each !== undefined); return known.length ? average(known) : null; };
  const rows = atSparsity().map((each) => {
    const runs = each.runs.map((run) => data.runs[run]);
    const memory = mean(runs.map((run) => run.memory[1] || run.memory[0]));
    return { method: each.method, total: mean(runs.map((run) => run.total)), gibibytes: memory === null ? null : memory / 2 ** 30,
      reused: Math.max(...runs.map((run) => run.reused)), runs: each.runs,
      ...Object.fromEntries(data.stages.map((stage, place) => [stage, mean(runs.map((run) => run.stages[place]))])) };
  });
  if (!rows.some((row) => row.total !== null)) return nothing("No run says what it took.");
  return { charts: { time: rows.flatMap((row) => data.stages.filter((stage) => row[stage]).map((stage) => ({ method: row.method, stage, seconds: row[stage],
    stage_order: data.stages.indexOf(stage), tip: `${row.method}\n${stage}: ${digits(row[stage], 1)} s` }))),
  memory: rows.filter((row) => row.gibibytes).map((row) => ({ method: row.method, gibibytes: row.gibibytes, tip: `${row.method}: ${digits(row.gibibytes, 2)} GiB` })) },
  columns: [column("method", "method"), column("total", "total, s", "seconds"), ...data.stages.map((stage) => column(stage, `${stage}, s`, "seconds")),
    column("gibibytes", "memory, GiB", "ratio"), column("reused", "artifacts reused", "count"), column("runs", "runs", "runs")], rows };
}
KINDS.seconds = { number: true, show: (value) => digits(value, 1), by: (value) => value };

function taskRows() {
  const allowed = new Set(languages().map(code_));
  const unfiltered = !(state.family || state.script || state.level);
  const rows = atSparsity().flatMap((each) => each.tasks.filter(([, , , code]) => (code ? allowed.has(code) || (unfiltered && !data.languages.some((one) => one.code === code)) : unfiltered))
    .map(([suite, metric, task, , documents, dense, pruned, difference, error]) => ({ method: each.method, suite, metric, task, documents, dense, pruned,
      difference, error, runs: [each.runs[0]] })));
  if (!rows.length) return nothing("No run shown here was measured on tasks (evaluation=full, evaluation.tasks=[…]).");
  return { charts: { tasks: rows.filter((row) => row.difference !== null).map((row) => ({ ...row, place: row.task, low: row.difference - 1.96 * (row.error || 0), high: row.difference + 1.96 * (row.error || 0),
    tip: `${row.method}\n${row.task}, ${row.metric}: ${digits(row.difference, 3)} ± ${digits(row.error, 3)}` })) },
  columns: [column("method", "method"), column("task", "task"), column("metric", "metric"), column("documents", "documents", "count"), column("dense", "dense", "score"),
    column("pruned", "pruned", "score"), column("difference", "difference", "score"), column("error", "standard error", "score"), column("runs", "first run", "runs")], rows };
}

const MEASURE_NAMES = { energy_lost: "activation energy lost", drift: "drift of hidden states", rank_correlation: "rank correlation of profiles",
  intersection_over_union: "overlap of single languages' masks" };
function insideRows() {
  const rows = atSparsity().flatMap((each) => each.inside.flatMap((values, block) => data.measures.map((measure, place) => ({ method: each.method, block,
    measure: MEASURE_NAMES[measure], value: values[place], runs: [each.runs[0]], tip: `${each.method}\nblock ${block}: ${digits(values[place], 3)}` })))).filter((row) => row.value !== null);
  if (!rows.length) return nothing("No run shown here looked inside (inside=full).");
  return { charts: { inside: rows }, columns: [column("method", "method"), column("measure", "measure"), column("block", "block", "count"), column("value", "value", "score"),
    column("runs", "first run", "runs")], rows };
}

function runRows() {
  const chosen = languages();
  const rows = data.configurations.filter((each) => each.protocol === state.protocol).flatMap((each) => each.runs.map((place) => {
    const run = data.runs[place];
    const logs = chosen.map((code) => run.ratios[code]);
    return { id: `run-${place}`, folder: run, method: each.method, sparsity: each.sparsity, seed: run.seed,
      ratio: logs.length && !logs.includes(null) ? exponential(average(logs)) : null, total: run.total, hash: run.hash, commit: run.commit, finished: run.finished };
  }));
  return { columns: [column("folder", "run", "folder"), column("method", "method"), column("sparsity", "sparsity", "sparsity"), column("seed", "seed"), column("ratio", "ratio", "ratio"),
    column("total", "total, s", "seconds"), column("hash", "configuration"), column("commit", "commit"), column("finished", "finished")], rows };
}

function differenceRows() {
  const [one, two] = [state.one, state.two].map((place) => new Map(data.configs[data.runs[place].config].map((each) => data.settings[each])));
  const rows = unique([...one.keys(), ...two.keys()]).filter((key) => one.get(key) !== two.get(key))
    .map((key) => ({ key, one: one.get(key) ?? "–", two: two.get(key) ?? "–" }));
  const reason = one.size && two.size ? "The two runs have the same configuration." : "A run has no config.yaml to compare.";
  return rows.length ? { columns: [column("key", "setting"), column("one", "first run"), column("two", "second run")], rows } : nothing(reason);
}

const SECTIONS = [
  { id: "curves", title: "Perplexity by sparsity", rows: curves, charts: { curves: "Lines: perplexity ratio by sparsity, a line for each method" },
    note: "Geometric mean over the languages chosen of pruned over dense perplexity; 1 is nothing lost. Bars are ± one standard deviation over seeds." },
  { id: "languages", title: "Methods by languages", rows: heat, charts: { heat: "Heat map: perplexity ratio of each language under each method" }, controls: ["sort"], at: true,
    note: "Pruned over dense perplexity of each language, the geometric mean over seeds. Darker is more damage; a heading of the table sorts by it." },
  { id: "paired", title: "Difference to the baseline by language", rows: pairedRows, charts: { paired: "Ranked intervals: difference in perplexity to the baseline of each language" },
    controls: ["paired-method"], at: true, note: "Paired over the same sentences; 95 % bootstrap intervals of which sentences were drawn. Better and worse: Wilcoxon's test corrected over languages (Holm), where the interval agrees. Left is better." },
  { id: "blocks", title: "Sparsity by block", rows: layersRows, charts: { layers: "Lines: share of zero weights in each block, a line for each schedule" }, at: true,
    note: "Of the first seed. Methods whose blocks are alike share a line." },
  { id: "matrices", title: "Sparsity by matrix", rows: matrixRows, charts: { matrices: "Heat map: per cent of zero weights of each kind of matrix in each block" }, controls: ["matrix-method"], at: true,
    note: "Per cent of zero weights, first seed; experts of one block taken together." },
  { id: "seen", title: "Seen against unseen languages", rows: seenRows, charts: { seen: "Dots: perplexity ratio over languages seen in calibration and over unseen ones" }, at: true,
    note: "Languages are seen where their text calibrated the pruning. The two groups are different languages: compare a method's gap with another's." },
  { id: "cost", title: "Time and memory", rows: costRows, charts: { time: "Bars: seconds of each stage by method", memory: "Bars: peak memory by method" }, at: true,
    note: "Means over runs; memory is that of the device where there is one. What was reused from an earlier run cost nothing here." },
  { id: "tasks", title: "Tasks", rows: taskRows, charts: { tasks: "Intervals: task score of the pruned model minus that of the dense one" }, at: true,
    note: "First seed; bars are 95 % intervals from the paired standard error. Right is better." },
  { id: "inside", title: "Inside the model", rows: insideRows, charts: { inside: "Lines: what pruning does in each block, a panel for each measure" }, at: true,
    note: "First seed, means over languages; docs/methods.md defines the measures." },
  { id: "runs", title: "Runs", rows: runRows, note: "Every number above comes from these; a name opens the run's folder." },
  { id: "difference", title: "Configuration of two runs", rows: differenceRows, controls: ["one", "two"], note: "What differs in their config.yaml." },
];
