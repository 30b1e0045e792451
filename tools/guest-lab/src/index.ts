/**
 * A real Linux in QEMU, on devices that `siov serve` puts on sockets. Debian's own kernel, drivers and tools are used as they come; what they say is
 * compared with what the devices' profiles and the drivers' documentation say.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Lab, type Outcome, type Scenario } from './lab.js';
import { scenarios } from './scenarios/index.js';
import type { Command } from './server.js';
import type { Cache } from './setup.js';

export type { Outcome } from './lab.js';
export { CommandFailed, LabProblem } from './problem.js';
export { scenarios } from './scenarios/index.js';
export type { Command } from './server.js';
export { Cache, ready, setUp } from './setup.js';
export { table } from './table.js';

export interface RunOptions {
  readonly cache: Cache;
  /** How `siov serve` is called here. */
  readonly serve: Command;
  /** Letters; default: all. */
  readonly only?: readonly string[];
  /** Leaves the guests' consoles in the folder. Those of a scenario that failed always stay. */
  readonly keepLog: boolean;
  started?(scenario: Scenario): void;
  ended(outcome: Outcome, logs: string | undefined): void;
}

/** Runs scenarios one after the other. Never throws for what goes wrong in one. */
export async function runScenarios(options: RunOptions): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const scenario of scenarios) {
    if (options.only && !options.only.includes(scenario.id)) continue;
    options.started?.(scenario);
    const folder = mkdtempSync(join(tmpdir(), `siov-guest-${scenario.id}-`));
    const lab = new Lab(options.cache, options.serve, folder);
    const from = performance.now();
    try {
      await scenario.run(lab);
    } catch (error) {
      lab.failures.push((error as Error).message);
    }
    await lab.close();
    const seconds = (performance.now() - from) / 1000;
    const passed = lab.failures.length === 0;
    const kept = options.keepLog || !passed;
    if (!kept) rmSync(folder, { recursive: true });
    const outcome = {
      ...{ id: scenario.id, name: scenario.name, passed, seconds },
      ...{ iops: lab.iops, share: lab.share, log: lab.shown, failures: lab.failures },
    };
    outcomes.push(outcome);
    options.ended(outcome, kept ? folder : undefined);
  }
  return outcomes;
}
