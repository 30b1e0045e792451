/** Work in steps that are done once: each leaves a stamp with what it was made from, and is done again when that changed. */
import { createHash } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Step<C> {
  readonly name: string;
  /** Printed while it runs. */
  readonly about: string;
  /** What it is made from, beside the steps before it. */
  inputs(context: C): readonly (string | Uint8Array)[];
  run(context: C): Promise<void>;
}

const digest = (before: string, parts: readonly (string | Uint8Array)[]): string => {
  const hash = createHash('sha256').update(before);
  for (const part of parts) hash.update(`${part.length} `).update(part);
  return hash.digest('hex');
};

/** The steps that are still to do, in order: from the first whose stamp is missing or old. */
export function open<C>(
  folder: string,
  steps: readonly Step<C>[],
  context: C,
): { readonly step: Step<C>; readonly stamp: string; readonly made: string }[] {
  let made = '';
  let open = false;
  return steps.flatMap((step) => {
    made = digest(made, [step.name, ...step.inputs(context)]);
    const stamp = join(folder, `${step.name}.done`);
    open ||= !existsSync(stamp) || readFileSync(stamp, 'utf8') !== made;
    return open ? [{ step, stamp, made }] : [];
  });
}

/** Does what is still to do. A step that fails, or is interrupted, has no stamp. */
export async function finish<C>(
  folder: string,
  steps: readonly Step<C>[],
  context: C,
  progress: (step: Step<C>, seconds?: number) => void,
): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const todo = open(folder, steps, context);
  for (const { stamp } of todo) rmSync(stamp, { force: true });
  for (const { step, stamp, made } of todo) {
    const from = performance.now();
    progress(step);
    await step.run(context);
    writeFileSync(stamp, made);
    progress(step, (performance.now() - from) / 1000);
  }
}

/** Runs `work` while no other process holds the file. One that died holds nothing. */
export async function alone<T>(file: string, waiting: (pid: number) => void, work: () => Promise<T>): Promise<T> {
  const mine = `${file}.${process.pid}`;
  writeFileSync(mine, `${process.pid}`);
  try {
    for (let told = 0; ; ) {
      try {
        // A link appears with its contents, or not at all.
        linkSync(mine, file);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const holder = holderOf(file);
      if (holder === undefined) continue;
      if (!alive(holder)) rmSync(file, { force: true });
      else {
        if (told !== holder) waiting((told = holder));
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  } finally {
    rmSync(mine, { force: true });
  }
  try {
    return await work();
  } finally {
    rmSync(file, { force: true });
  }
}
/** Undefined: it has just been given back. */
function holderOf(file: string): number | undefined {
  try {
    return Number(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}
function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
