/** Command line options: declared once, parsed strictly, refused in one line that says how to mend it. */

/** A mistake of the user: printed as one line, exit code 2. */
export class UsageError extends Error {}

export interface Option {
  readonly name: string;
  /** What stands for the value in help; absent: a switch. */
  readonly value?: string;
  readonly help: string;
  /** Printed as the default. */
  readonly default?: string;
  /** Turns the text into a value; throws UsageError through `bad`. */
  parse?(text: string, bad: (why: string) => never): unknown;
}

export interface Parsed {
  readonly words: readonly string[];
  readonly values: Readonly<Record<string, unknown>>;
}

/** '--name value', '--name=value' and '--switch'; everything else is a word. */
export function parseOptions(argv: readonly string[], options: readonly Option[], command: string): Parsed {
  const words: string[] = [];
  const values: Record<string, unknown> = {};
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!;
    if (!argument.startsWith('--') || argument === '--') {
      if (argument !== '--') words.push(argument);
      continue;
    }
    const [name = '', inline] = argument.slice(2).split(/=(.*)/s, 2);
    const option = options.find((o) => o.name === name);
    if (!option) throw new UsageError(`unknown option --${name}${nearest(name, options)}; 'siov ${command} --help' lists them`);
    const bad = (why: string): never => {
      throw new UsageError(`--${name}: ${why}`);
    };
    if (option.value === undefined) {
      if (inline !== undefined) bad('takes no value');
      values[name] = true;
      continue;
    }
    const text = inline ?? argv[++i];
    if (text === undefined || (inline === undefined && text.startsWith('--'))) bad(`needs a value: --${name} ${option.value}`);
    values[name] = option.parse ? option.parse(text!, bad) : text;
  }
  return { words, values };
}

const nearest = (name: string, options: readonly Option[]): string => {
  const close = options.map((o) => ({ name: o.name, d: distance(name, o.name) })).sort((a, b) => a.d - b.d)[0];
  return close && close.d <= 2 ? ` (did you mean --${close.name}?)` : '';
};
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}

/** '4096', '4K', '2M', '1G'. */
export const bytesOf =
  (low: number, high: number) =>
  (text: string, bad: (why: string) => never): number => {
    const match = /^(\d+)([KMG]i?B?)?$/i.exec(text);
    const unit = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match?.[2]?.[0]?.toUpperCase() ?? ''] ?? 1;
    const value = match ? Number(match[1]) * unit : Number.NaN;
    return value >= low && value <= high ? value : bad(`'${text}' is not a size from ${sizeText(low)} to ${sizeText(high)} (such as 4096, 64K, 2M)`);
  };
export const integerOf =
  (low: number, high: number) =>
  (text: string, bad: (why: string) => never): number =>
    /^\d+$/.test(text) && Number(text) >= low && Number(text) <= high ? Number(text) : bad(`'${text}' is not a whole number from ${low} to ${high}`);
export const oneOfWords =
  <const T extends string>(...words: readonly T[]) =>
  (text: string, bad: (why: string) => never): T =>
    words.includes(text as T) ? (text as T) : bad(`'${text}' is not one of ${words.join(', ')}`);

export const sizeText = (bytes: number): string => {
  for (const [unit, span] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const)
    if (bytes >= span && bytes % (span / 16) === 0) return `${bytes / span} ${unit}`;
  return `${bytes} B`;
};

export function helpText(usage: string, about: string, options: readonly Option[]): string {
  const left = options.map((o) => `--${o.name}${o.value ? ` ${o.value}` : ''}`);
  const width = Math.max(...left.map((l) => l.length)) + 2;
  return `usage: ${usage}\n\n${about}\n\noptions:\n${options.map((o, i) => `  ${left[i]!.padEnd(width)}${o.help}${o.default ? ` (default ${o.default})` : ''}`).join('\n')}\n`;
}
