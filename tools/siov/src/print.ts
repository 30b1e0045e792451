/** Reports for people. */
import { type Figures, figureNames } from '@siov/stack';
import type { Report } from './model.js';
import { count, nsText, table, words } from './text.js';

const perDescriptor = (figures: Figures, name: string, descriptors: number): string => count((figures[name] ?? 0) / Math.max(1, descriptors));

/** Side by side, per descriptor and in total. */
export function printReports(reports: readonly Report[]): string {
  const heads = reports.map((r) => `${r.model} (${r.mode})`);
  const out: string[] = [];
  const section = (title: string, rows: readonly (readonly string[])[], columns: readonly string[]): void => {
    if (rows.length > 0) out.push(`\n${table(rows, [title, ...columns])}`);
  };

  const callNames = [...new Set(reports.flatMap((r) => Object.keys(r.setup.calls)))];
  section(
    'set-up steps',
    [
      ...callNames.map((name) => [name, ...reports.map((r) => (r.setup.calls[name] ? count(r.setup.calls[name]) : '-'))]),
      ['modelled time', ...reports.map((r) => nsText(r.setup.virtualNs))],
    ],
    heads,
  );

  const shown = figureNames.filter((name) => reports.some((r) => (r.figures[name] ?? 0) !== 0));
  section(
    'while it ran',
    shown.map((name) => [
      words(name),
      ...reports.flatMap((r) => [perDescriptor(r.figures, name, r.result.descriptors), count(r.figures[name] ?? 0)]),
    ]),
    heads.flatMap((h) => [`${h}: per descriptor`, 'in total']),
  );
  const exitNames = [...new Set(reports.flatMap((r) => Object.keys(r.exits)))].filter((name) => reports.some((r) => (r.exits[name] ?? 0) > 0));
  section(
    'VM exits by reason',
    exitNames.map((name) => [words(name), ...reports.map((r) => count(r.exits[name] ?? 0))]),
    heads,
  );

  const { latency } = { latency: (r: Report) => r.result.latency };
  section(
    'time',
    [
      ['modelled latency, mean', ...reports.map((r) => nsText(latency(r).mean))],
      ['modelled latency, median', ...reports.map((r) => nsText(latency(r).p50))],
      ['modelled latency, 99 %', ...reports.map((r) => nsText(latency(r).p99))],
      ['modelled, whole run', ...reports.map((r) => nsText(r.result.virtualNs))],
      ['modelled throughput', ...reports.map((r) => (r.result.virtualNs > 0 ? `${(r.result.bytes / r.result.virtualNs).toFixed(2)} GB/s` : '-'))],
      ['measured here, whole run', ...reports.map((r) => `${r.result.wallMs.toFixed(1)} ms`)],
      ['measured here, per descriptor', ...reports.map((r) => nsText((r.result.wallMs * 1e6) / Math.max(1, r.result.descriptors)))],
    ],
    heads,
  );
  const costNames = [...new Set(reports.flatMap((r) => Object.keys(r.serialCost)))];
  section(
    'serial cost, by event',
    costNames.map((name) => [name, ...reports.map((r) => (r.serialCost[name] ? nsText(r.serialCost[name]) : '-'))]),
    heads,
  );
  section(
    'results',
    [
      ['descriptors', ...reports.map((r) => count(r.result.descriptors))],
      ['bytes', ...reports.map((r) => count(r.result.bytes))],
      ...[...new Set(reports.flatMap((r) => Object.keys(r.result.statuses)))].map((name) => [
        `status: ${words(name)}`,
        ...reports.map((r) => count(r.result.statuses[name] ?? 0)),
      ]),
      ['resumed after a page fault', ...reports.map((r) => count(r.result.resumes))],
      ['different from a plain computation', ...reports.map((r) => count(r.result.wrong))],
    ],
    heads,
  );
  for (const r of reports) for (const line of [...r.faults, ...r.events]) out.push(`${r.model}: ${line}`);
  return out.join('\n').trimStart();
}

/** Whether every descriptor ended and every result was right. */
export const allRight = (reports: readonly Report[]): boolean => reports.every((r) => r.result.wrong === 0 && r.result.finished);
export const verdict = (reports: readonly Report[]): string => {
  const failed = reports.reduce((n, r) => n + Object.entries(r.result.statuses).reduce((m, [name, c]) => m + (name === 'success' ? 0 : c), 0), 0);
  const wrong = reports.reduce((n, r) => n + r.result.wrong, 0);
  const unfinished = reports.filter((r) => !r.result.finished).map((r) => r.model);
  if (wrong > 0) return `WRONG: ${count(wrong)} results differ from a plain computation`;
  if (unfinished.length > 0) return `not finished: ${unfinished.join(', ')}`;
  return `every result equals a plain computation${failed > 0 ? `; ${count(failed)} descriptors ended with an error, see the statuses` : ''}`;
};
