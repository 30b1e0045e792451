/** Tables and progress for people. Progress goes to standard error, and only to a terminal. */

/** Columns aligned; the first left, the others right. */
export function table(rows: readonly (readonly string[])[], header?: readonly string[]): string {
  const all = header ? [header, ...rows] : rows;
  const widths: number[] = [];
  for (const row of all) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  const lines = all.map(line);
  if (header) lines.splice(1, 0, widths.map((w) => '-'.repeat(w)).join('  '));
  return lines.join('\n');
}

export const count = (n: number): string =>
  Number.isInteger(n) ? n.toLocaleString('en-US') : n.toLocaleString('en-US', { maximumFractionDigits: n < 10 ? 3 : 1 });
export const nsText = (ns: number): string =>
  ns >= 1e9
    ? `${(ns / 1e9).toFixed(2)} s`
    : ns >= 1e6
      ? `${(ns / 1e6).toFixed(2)} ms`
      : ns >= 1e4
        ? `${(ns / 1e3).toFixed(1)} us`
        : `${Math.round(ns)} ns`;
/** 'walkReads' as 'walk reads'. */
export const words = (name: string): string => name.replace(/([A-Z])/g, (c) => ` ${c.toLowerCase()}`);

/** A line on a terminal that is written over. */
export function progress(label: string, total: number): (done: number) => void {
  if (!process.stderr.isTTY) return () => {};
  let last = 0;
  return (done) => {
    const now = Date.now();
    if (now - last < 100 && done < total) return;
    last = now;
    process.stderr.write(`\r${label} ${Math.floor((100 * done) / total)} %${done >= total ? '\r\x1b[K' : ''}`);
  };
}
