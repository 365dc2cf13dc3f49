// What the page knows, what is chosen, and what the numbers come to for that choice.
const data = JSON.parse(document.getElementById("data").textContent);
const specifications = JSON.parse(document.getElementById("charts").textContent);
const BROKEN = 999; // an infinite log-ratio
const MOST_METHODS = 8; // that colours, shapes and dashes can tell apart

const state = { protocol: 0, sparsity: 0, family: "", script: "", level: "", seen: "", methods: new Set(),
  sort: "family", paired: "", matrices: "", one: 0, two: 1 };

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const exponential = (value) => (value >= 700 ? Infinity : Math.exp(value));
const unique = (values) => [...new Set(values)];

function deviation(values) {
  if (values.length < 2 || !values.every(Number.isFinite)) return null;
  const middle = average(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

const ofProtocol = () => data.configurations.filter((each) => each.protocol === state.protocol);
const allMethods = () => unique(ofProtocol().map((each) => each.method));
const shown = () => {
  const order = [...state.methods];
  return ofProtocol()
    .filter((each) => state.methods.has(each.method))
    .sort((one, two) => order.indexOf(one.method) - order.indexOf(two.method) || one.sparsity - two.sparsity);
};
const atSparsity = () => shown().filter((each) => each.sparsity === state.sparsity);

// Languages that every run of the protocol has and that pass the filters, by number.
function languages() {
  return data.protocols[state.protocol].languages.filter((place) => {
    const each = data.languages[place];
    return (!state.family || each.family === state.family) && (!state.script || each.script === state.script)
      && (!state.level || each.level === state.level);
  });
}

const isSeen = (configuration, language) => configuration.calibrated.includes(language);

function languagesOf(configuration, seen = state.seen) {
  return languages().filter((each) => !seen || (seen === "seen") === isSeen(configuration, each));
}

// A language's geometric mean of the ratio over seeds.
function ratioOf(configuration, language) {
  const logs = configuration.runs.map((run) => data.runs[run].ratios[language]);
  return logs.some((each) => each === null) ? null : exponential(average(logs));
}

// Geometric mean over languages, then mean and standard deviation over runs.
function overSeeds(configuration, chosen) {
  if (!chosen.length) return null;
  const values = configuration.runs.map((run) => exponential(average(chosen.map((each) => data.runs[run].ratios[each]))));
  return { mean: average(values), deviation: deviation(values), n: values.length };
}

// Methods by their ratio over all languages, the best first: at each sparsity that all have, or else at any.
function ranked() {
  const scores = new Map();
  for (const each of ofProtocol()) {
    const total = overSeeds(each, data.protocols[state.protocol].languages);
    if (total) scores.set(each.method, [...(scores.get(each.method) || []), Math.log(total.mean)]);
  }
  const most = Math.max(0, ...[...scores.values()].map((each) => each.length));
  const value = (method) => {
    const own = scores.get(method) || [];
    return own.length === most && most ? average(own) : Infinity;
  };
  return allMethods().map((method) => [method, value(method)]).sort((one, two) => (one[1] === two[1] ? 0 : one[1] - two[1]))
    .map(([method]) => method);
}

const baselines = () => unique(ofProtocol().filter((each) => each.baseline !== null)
  .map((each) => data.configurations[each.baseline].method));

// A colour from light to dark, the same in both themes, and the ink that can be read on it.
const RAMP = [[255, 247, 224], [253, 208, 138], [240, 138, 82], [196, 62, 46], [110, 8, 30]];
function shade(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  const parts = RAMP[low].map((part, at) => Math.round(part + (RAMP[low + 1][at] - part) * (place - low)));
  const [red, green, blue] = parts.map((part) => (part / 255 <= 0.04045 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return { fill: `rgb(${parts.join(",")})`, ink: 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.055 ? "#fff" : "#111" };
}
