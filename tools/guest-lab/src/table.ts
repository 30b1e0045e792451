/** The table at the end of a run. */
import type { Outcome } from './lab.js';

const shorten = (text: string, width: number): string => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);

const range = (values: readonly number[]): string => {
  if (values.length === 0) return '';
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least === most ? `${most}` : `${least} to ${most}`;
};
const wrap = (text: string, width: number): string[] =>
  text.match(new RegExp(`.{1,${width - 4}}(?= · |$)`, 'g'))!.map((part) => `    ${part.replace(/^ · /, '')}`);

/** Rates are a range in the row, and each by its name under it. */
export function table(outcomes: readonly Outcome[], width = 150): string {
  const rows = outcomes.map((o) => [
    `${o.id} ${o.name}`,
    o.passed ? 'passed' : 'FAILED',
    `${o.seconds.toFixed(1)} s`,
    range(Object.values(o.iops)),
    o.share === undefined ? '' : `${Math.round(o.share * 100)} %`,
  ]);
  const head = ['scenario', 'result', 'time', 'iops', 'our CPU'];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd();
  const out = [line(head), widths.map((w) => '-'.repeat(w)).join('  ')];
  for (const [i, outcome] of outcomes.entries()) {
    out.push(line(rows[i]!));
    const named = Object.entries(outcome.iops).map(([name, iops]) => `${name} ${iops}`);
    if (named.length > 0) out.push(...wrap(`iops: ${named.join(' · ')}`, width));
    for (const text of outcome.log) out.push(shorten(`    ${text}`, width));
    for (const text of outcome.failures) for (const part of text.split('\n')) out.push(`    ! ${part}`);
  }
  return `${out.join('\n')}\n`;
}
