/** The table at the end of a run. */
import type { Outcome } from './lab.js';

const shorten = (text: string, width: number): string => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);

export function table(outcomes: readonly Outcome[], width = 150): string {
  const rows = outcomes.map((o) => [
    `${o.id} ${o.name}`,
    o.passed ? 'passed' : 'FAILED',
    `${o.seconds.toFixed(1)} s`,
    Object.entries(o.iops)
      .map(([name, iops]) => `${iops} (${name})`)
      .join(', '),
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
    for (const text of outcome.log) out.push(shorten(`    ${text}`, width));
    for (const text of outcome.failures) for (const part of text.split('\n')) out.push(`    ! ${part}`);
  }
  return `${out.join('\n')}\n`;
}
