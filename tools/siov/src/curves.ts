/** `siov curves`: the set-ups of published measurements on the model, point by point beside what was measured, and what follows from them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Claim, claims } from './curves-claims.js';
import { curves as all, type Curve, type PageState, pageStates } from './curves-data.js';
import { type Counts, GIB, intoPages, type Pages, Rig, translationCounts } from './curves-rig.js';
import { helpText, type Option, parseOptions, sizeText, UsageError } from './options.js';
import { progress, table } from './text.js';

const options: readonly Option[] = [
  { name: 'svg', value: 'DIR', help: 'also draw each curve into DIR' },
  { name: 'json', help: 'print JSON for machines' },
  { name: 'help', help: 'this text' },
];

interface Point {
  readonly x: number;
  readonly measured: number;
  readonly model: number;
  /** As a fraction; undefined: none is advised. */
  readonly tolerance?: number;
  readonly inside: boolean;
}
interface Drawn {
  readonly curve: Curve;
  readonly points: readonly Point[];
}

const point = (x: number, measured: number, model: number, tolerance: number): Point => ({
  x,
  measured,
  model,
  ...(tolerance === Number.POSITIVE_INFINITY ? {} : { tolerance }),
  inside: Math.abs(model / measured - 1) <= tolerance,
});

const run = (curve: Curve): Drawn => {
  const { kind, op, engines, reuse = false } = curve;
  const rig = new Rig({ engines, reuse });
  const model = (x: number): number => {
    if (kind === 'sync') return rig.sync(op, x);
    if (kind === 'async') return (x / rig.asynchronous(op, x)) * (1e6 / GIB);
    if (kind === 'batch') return rig.batch(op, x);
    if (kind === 'alignment') return new Rig({ engines, offset: x % 128 }).asynchronous(op, 64);
    return rig.overtaking(op, x);
  };
  return { curve, points: curve.sizes.map((x, i) => point(x, curve.measured[i]!, model(x), curve.tolerance(x))) };
};

interface State extends PageState {
  readonly model: number;
  readonly inside: boolean;
}
/** C11. */
function runPageStates(): State[] {
  const setups: readonly (readonly [Pages, size: number, bytes: number])[] = [
    [{ blockOnFault: true }, 256 << 10, 4 << 20],
    [{ resume: 128 << 10 }, 32 << 10, 4 << 20],
    [{ touch: 'all' }, 256 << 10, 16 << 20],
    [{ touch: 'each', huge: true }, 256 << 10, 32 << 20],
    [{ populated: true }, 256 << 10, 16 << 20],
  ];
  return pageStates.map((state: PageState, i) => {
    const model = intoPages(...setups[i]!);
    return { ...state, model, inside: Math.abs(model / state.measured - 1) <= 0.15 };
  });
}

const ABOUT = `Runs the set-ups of published measurements of DSA on the model and prints, point by point, model, measurement, deviation and the
tolerance that the data deserve; where points are outside, a likely reason. C1 to C4, C6, C9, the floor of C5 and the first point of C11 set
rows of the cost table, so they test its shape; the first point of C7 set what the thread spends on a member of a batch; the others
are mostly independent, and C13 is exact. Then, without an ID or with 'claims', twelve statements about such devices, each true or
false by what this run measured on the model.`;

export function curves(argv: readonly string[]): number {
  const { words, values } = parseOptions(argv, options, 'curves');
  if (values.help) {
    process.stdout.write(helpText('siov curves [ID ...] [claims] [options]', ABOUT, options));
    return 0;
  }
  const known = [...new Set([...all.map((c) => c.id), 'C11', 'C13', 'claims'])];
  for (const w of words) if (!known.includes(w)) throw new UsageError(`there is no curve '${w}'; curves are ${known.join(', ')}`);
  const wanted = (id: string): boolean => words.length === 0 || words.includes(id);
  const tell = progress('curves', known.length + 1);
  const drawn: Drawn[] = [];
  let states: State[] = [];
  let counts: Counts[] = [];
  let done = 0;
  for (const curve of all)
    if (wanted(curve.id)) {
      drawn.push(run(curve));
      tell(++done);
    }
  if (wanted('C11')) states = runPageStates();
  if (wanted('C13')) counts = translationCounts();
  const checked = wanted('claims') ? claims() : [];
  tell(known.length + 1);
  if (values.json) process.stdout.write(`${JSON.stringify(json(drawn, states, counts, checked), null, 2)}\n`);
  else print(drawn, states, counts, checked);
  if (values.svg) draw(values.svg as string, drawn);
  return 0;
}

const json = (drawn: readonly Drawn[], states: readonly State[], counts: readonly Counts[], checked: readonly Claim[]) => ({
  version: 2,
  curves: drawn.map(({ curve: { id, what, calibrates = false, because }, points }) => ({
    id,
    what,
    calibrates,
    points,
    ...(because && points.some((p) => p.tolerance !== undefined && !p.inside) ? { because } : {}),
  })),
  C11: states,
  C13: counts,
  claims: checked,
});

const percent = (x: number): string => `${x >= 0 ? '+' : ''}${(100 * x).toFixed(1)} %`;
const figure = (x: number): string => (x >= 100 ? x.toFixed(0) : x.toFixed(2));

function print(drawn: readonly Drawn[], states: readonly State[], counts: readonly Counts[], checked: readonly Claim[]): void {
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  for (const { curve, points } of drawn) {
    const judged = points.filter((p) => p.tolerance !== undefined);
    const inside = judged.filter((p) => p.inside).length;
    say(`${curve.id}: ${curve.what}; ${inside} of ${judged.length} points within the tolerance${curve.calibrates ? ' (sets the table)' : ''}`);
    say(
      table(
        points.map((p) => [
          sizeText(p.x),
          figure(p.measured),
          figure(p.model),
          percent(p.model / p.measured - 1),
          p.tolerance === undefined ? '' : `${Math.round(p.tolerance * 100)} %`,
          p.inside ? '' : 'outside',
        ]),
        ['size', 'measured', 'model', 'deviation', 'tolerance', ''],
      ),
    );
    if (inside < judged.length && curve.because) say(`a likely reason, which no run tested: ${curve.because}`);
    say('');
  }
  if (states.length > 0) {
    const ordered = states.every((s, i) => i === 0 || s.model > states[i - 1]!.model);
    say(`C11: moves into pages by their state, GiB/s (tolerance 15 %); the order is ${ordered ? 'as measured' : 'another than measured'}`);
    say(
      table(
        states.map((s) => [s.what, figure(s.measured), figure(s.model), percent(s.model / s.measured - 1), s.inside ? '' : 'outside']),
        ['', 'measured', 'model', 'deviation', ''],
      ),
    );
    for (const s of states) if (!s.inside && s.because) say(`a likely reason (${s.what}), which no run tested: ${s.because}`);
    say('');
  }
  if (counts.length > 0) {
    say('C13: translations (exact)');
    say(
      table(
        counts.map((c) => [c.what, `${c.requests} of ${c.wantRequests}`, c.wantHits === undefined ? '' : `${c.hits} of ${c.wantHits}`]),
        ['', 'requests', 'hits'],
      ),
    );
    say('');
  }
  if (checked.length > 0) {
    say(`Statements that the model should reproduce; ${checked.filter((c) => c.holds).length} of ${checked.length} hold`);
    for (const claim of checked) {
      say(`${`${claim.number}`.padStart(2)}  ${claim.holds ? 'true ' : 'false'}  ${claim.text}`);
      for (const part of claim.parts) say(`      ${part.holds ? 'true ' : 'false'}  ${part.what}: ${part.found}`);
    }
  }
}

/** Log-log plots: measured points as circles, the model as a line. */
function draw(folder: string, results: readonly Drawn[]): void {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new UsageError(`--svg: cannot make '${folder}': ${(error as NodeJS.ErrnoException).code}`);
  }
  for (const { curve, points } of results) {
    const ys = points.flatMap((p) => [p.measured, p.model]);
    const [low, high] = [Math.min(...ys), Math.max(...ys)];
    const scale = (v: number, from: number, to: number, first: number, last: number): number =>
      first + ((Math.log(v) - Math.log(from)) / (Math.log(to) - Math.log(from) || 1)) * (last - first);
    const x = (v: number): string => scale(v, points[0]!.x, points.at(-1)!.x, 60, 580).toFixed(1);
    const y = (v: number): string => scale(v, low, high, 340, 50).toFixed(1);
    // Round numbers of the vertical scale: 1, 2 and 5 in each decade.
    const marks = Array.from({ length: 30 }, (_, i) => [1, 2, 5][i % 3]! * 10 ** (Math.floor(i / 3) - 4)).filter((v) => v >= low && v <= high);
    const name = results.filter((r) => r.curve.id === curve.id).length > 1 ? `${curve.id}-${curve.op}` : curve.id;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 380" font-family="sans-serif" font-size="12">
<rect width="620" height="380" fill="#fff"/>
<text x="60" y="20">${curve.id}: ${curve.what}</text>
${marks.map((v) => `<line x1="60" x2="580" y1="${y(v)}" y2="${y(v)}" stroke="#ddd"/><text x="54" y="${(Number(y(v)) + 3).toFixed(1)}" text-anchor="end" font-size="9">${v < 1 ? v.toFixed(1) : v}</text>`).join('\n')}
<polyline fill="none" stroke="#06c" stroke-width="2" points="${points.map((p) => `${x(p.x)},${y(p.model)}`).join(' ')}"/>
${points.map((p) => `<circle cx="${x(p.x)}" cy="${y(p.measured)}" r="4" fill="none" stroke="#c30"><title>${sizeText(p.x)}: measured ${p.measured}, model ${p.model.toFixed(2)}</title></circle>`).join('\n')}
${points.map((p) => `<text x="${x(p.x)}" y="362" text-anchor="middle" font-size="9">${sizeText(p.x).replace('iB', '')}</text>`).join('\n')}
<text x="60" y="36" fill="#06c">line: model</text><text x="140" y="36" fill="#c30">circles: measured</text>
</svg>
`;
    writeFileSync(join(folder, `${name}.svg`), svg);
  }
}
