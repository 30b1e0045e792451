/** `siov wire FILE`: what went over a connection that `siov serve --wire FILE` recorded, by field names. */
import { readFileSync } from 'node:fs';
import { decode, describe, readWire, WireFormatError } from '@siov/vfio-user';
import { helpText, integerOf, type Option, parseOptions, UsageError } from './options.js';

const options: readonly Option[] = [
  { name: 'device', value: 'N', help: 'only what the device with this number said and heard', parse: integerOf(0, 65_535) },
  { name: 'command', value: 'NAME', help: 'only this command and its replies, such as REGION_WRITE or DMA_MAP' },
  { name: 'summary', help: 'how many of each command, and how long replies took' },
  { name: 'json', help: 'one line of JSON for each message, for machines' },
  { name: 'help', help: 'this text' },
];

export function wire(argv: readonly string[]): number {
  const { words, values } = parseOptions(argv, options, 'wire');
  if (values.help) {
    process.stdout.write(
      helpText(
        'siov wire FILE [options]',
        "Prints a connection that 'siov serve --wire FILE' recorded: milliseconds, direction (> to the device), message.",
        options,
      ),
    );
    return 0;
  }
  const [path, second] = words;
  if (path === undefined || second !== undefined) throw new UsageError("one file: 'siov wire FILE'; 'siov serve --wire FILE' makes one");
  let file: Uint8Array;
  try {
    file = readFileSync(path);
  } catch (error) {
    throw new UsageError(`there is no file '${path}' to read (${(error as NodeJS.ErrnoException).code})`);
  }
  const summary = new Summary();
  let lines: string[] = [];
  const put = (line: string): void => {
    lines.push(line);
    if (lines.length < 1000) return;
    process.stdout.write(`${lines.join('\n')}\n`);
    lines = [];
  };
  try {
    for (const entry of readWire(file)) {
      if (values.device !== undefined && entry.device !== values.device) continue;
      const message = decode(entry.message);
      if (values.command !== undefined && message.command !== values.command) continue;
      const { device, fromServer, second: twin, fds, microseconds } = entry;
      if (values.summary) summary.add(message.command, device, fromServer, message.reply, message.id, microseconds, message.error !== undefined);
      else if (values.json) {
        const { data, ...rest } = message;
        put(
          JSON.stringify({
            microseconds,
            device,
            from: fromServer ? 'device' : 'client',
            ...(twin ? { second: true } : {}),
            fds,
            ...rest,
            data: Buffer.from(data).toString('hex'),
          }),
        );
      } else
        put(
          `${(microseconds / 1000).toFixed(3).padStart(10)} ${device > 0 ? `${device} ` : ''}${fromServer ? '<' : '>'} ${describe(entry.message)}${fds ? ` +${fds} fd` : ''}${twin ? ' (second socket)' : ''}`,
        );
    }
  } catch (error) {
    if (!(error instanceof WireFormatError)) throw error;
    throw new UsageError(`'${path}': ${error.message}`);
  }
  if (values.summary) for (const line of summary.lines(values.json === true)) put(line);
  if (lines.length > 0) process.stdout.write(`${lines.join('\n')}\n`);
  return 0;
}

/** Counts and times of replies, by command. */
class Summary {
  readonly #rows = new Map<string, { count: number; errors: number; times: number[] }>();
  readonly #sent = new Map<string, number>();

  add(command: string, device: number, fromServer: boolean, reply: boolean, id: number, microseconds: number, failed: boolean): void {
    let row = this.#rows.get(command);
    if (!row) {
      row = { count: 0, errors: 0, times: [] };
      this.#rows.set(command, row);
    }
    const key = `${device} ${fromServer !== reply} ${id}`;
    if (!reply) {
      row.count++;
      this.#sent.set(key, microseconds);
      return;
    }
    if (failed) row.errors++;
    const sent = this.#sent.get(key);
    if (sent !== undefined) row.times.push(microseconds - sent);
    this.#sent.delete(key);
  }
  lines(json: boolean): string[] {
    const at = (times: readonly number[], share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
    const rows = [...this.#rows].map(([command, { count, errors, times }]) => {
      const sorted = [...times].sort((a, b) => a - b);
      return { command, count, errors, p50: at(sorted, 0.5), p99: at(sorted, 0.99) };
    });
    if (json) return [JSON.stringify(rows)];
    const width = Math.max(7, ...rows.map((row) => row.command.length));
    return [
      `${'command'.padEnd(width)}     count    errors  reply p50    p99 (microseconds)`,
      ...rows.map(
        (row) =>
          `${row.command.padEnd(width)} ${String(row.count).padStart(9)} ${String(row.errors).padStart(9)} ${String(row.p50).padStart(10)} ${String(row.p99).padStart(6)}`,
      ),
    ];
  }
}
