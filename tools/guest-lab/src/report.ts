/** What the guest says: lines of the second serial line, results of dmatest, lines of the kernel's log. */

/** `NAME<TAB>TEXT`, as `send` and `ask` of the guest's functions write it; a line without a tab is a word of its own. */
export interface Said {
  readonly name: string;
  readonly text: string;
}
export function parseSaid(line: string): Said {
  const clean = line.replace(/\r$/, '');
  const tab = clean.indexOf('\t');
  return tab < 0 ? { name: clean, text: '' } : { name: clean.slice(0, tab), text: clean.slice(tab + 1) };
}

/** One thread's summary: the kernel's drivers/dma/dmatest.c prints it. */
export interface DmatestThread {
  readonly channel: string;
  readonly tests: number;
  readonly failures: number;
  readonly iops: number;
  /** 0, or the errno that ended the thread. */
  readonly status: number;
}
export const parseDmatest = (lines: readonly string[]): DmatestThread[] =>
  lines.flatMap((line) => {
    const match = /dmatest: (\S+?)-\w+: summary (\d+) tests, (\d+) failures ([\d.]+) iops \S+ KB\/s \((-?\d+)\)/.exec(line);
    if (!match) return [];
    const [, channel, tests, failures, iops, status] = match;
    return [{ channel: channel!, tests: Number(tests), failures: Number(failures), iops: Number(iops), status: Number(status) }];
  });

/** Lines of a kernel's log that should never be there. */
const trouble =
  /\bBUG:|\bOops:|WARNING:|Call Trace:|invalid opcode|general protection|blocked for more than|soft lockup|Kernel panic|DMAR: .*([Ff]ault|[Ff]ailed)/;
export const troubleIn = (log: readonly string[]): string[] => log.filter((line) => trouble.test(line));

/** A line without its time stamp. */
export const withoutTime = (line: string): string => line.replace(/^\[\s*\d+\.\d+\]\s*/, '');

/** Output of `lspci -Dnvvv`: the devices' addresses and the lines under each. */
export function parseLspci(lines: readonly string[]): Map<string, string[]> {
  const devices = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of lines) {
    const head = /^([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (.*)/.exec(line);
    if (head) devices.set(head[1]!, (current = [head[2]!]));
    else if (line.trim() !== '') current.push(line.trim());
  }
  return devices;
}
