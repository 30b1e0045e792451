/** `siov guest`: scenarios in a real Linux guest, on devices that `siov serve` puts on sockets. */
import { Cache, CommandFailed, LabProblem, type Outcome, ready, runScenarios, scenarios, setUp, table } from '@siov/guest-lab';
import { helpText, type Option, parseOptions, UsageError } from './options.js';

const options: readonly Option[] = [
  {
    name: 'only',
    value: 'LETTERS',
    help: "scenarios to run, as in 'a,d'; default: all",
    parse(text, bad) {
      const letters = text.split(',').filter((letter) => letter !== '');
      for (const letter of letters)
        if (!scenarios.some(({ id }) => id === letter)) bad(`'${letter}' is not one of ${scenarios.map(({ id }) => id).join(', ')}`);
      return letters.length > 0 ? letters : bad('names no scenario');
    },
  },
  { name: 'set-up', help: 'only fetch and build what the guest needs' },
  { name: 'keep-log', help: "leave the guests' consoles, and say where" },
  { name: 'json', help: 'one line of JSON for each event, for machines' },
  { name: 'help', help: 'this text' },
];
const about = `Boots a real Linux (Debian's, unmodified) in QEMU on our devices and lets its own driver, accel-config and dmatest judge them.

The first run fetches about 400 MB of Debian's packages into ~/.cache/siov/guest-lab (or $XDG_CACHE_HOME); nothing is installed. Delete the folder, and all
is as before.

scenarios:
${scenarios.map(({ id, name, about }) => `  ${id} ${name.padEnd(16)}${about}`).join('\n')}`;

export async function guest(argv: readonly string[]): Promise<number> {
  const { words, values } = parseOptions(argv, options, 'guest');
  if (values.help) {
    process.stdout.write(helpText('siov guest [options]', about, options));
    return 0;
  }
  if (words.length > 0) throw new UsageError(`'${words[0]}' is not an option; scenarios are chosen with --only`);
  const json = values.json === true;
  const say = (event: object, text: string): void => void process.stdout.write(json ? `${JSON.stringify(event)}\n` : text);
  const cache = new Cache();
  try {
    if (!ready(cache)) await setUp(cache, (line) => say({ event: 'set-up', line }, `${line}\n`));
  } catch (error) {
    if (error instanceof LabProblem) throw new UsageError(error.message);
    if (!(error instanceof CommandFailed)) throw error;
    process.stderr.write(`siov: the set-up failed: ${error.message}\n`);
    return 1;
  }
  if (values['set-up']) {
    say({ event: 'ready', folder: cache.folder }, `everything is there: ${cache.folder}\n`);
    return 0;
  }
  // What we started ends with us.
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
  ] as const)
    process.once(signal, () => process.exit(128 + number));
  const outcomes = await runScenarios({
    cache,
    serve: [process.execPath, ...process.execArgv, process.argv[1]!, 'serve'],
    keepLog: values['keep-log'] === true,
    ...(values.only ? { only: values.only as string[] } : {}),
    started: ({ id, name }) => {
      if (!json) process.stdout.write(`${id} ${name} ... `);
    },
    ended: (outcome, logs) => say({ event: 'scenario', ...outcome, logs }, progress(outcome, logs)),
  });
  const failed = outcomes.filter((outcome) => !outcome.passed).length;
  const passed = outcomes.length - failed;
  say({ event: 'end', passed, failed }, `\n${table(outcomes)}\n${passed} passed, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}

const progress = ({ passed, seconds }: Outcome, logs: string | undefined): string =>
  `${passed ? 'passed' : 'FAILED'} (${seconds.toFixed(1)} s)${logs ? `; consoles in ${logs}` : ''}\n`;
