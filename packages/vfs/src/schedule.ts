/**
 * Round robin over the processes of one or more kernels that share a clock. Between steps the clock runs what is due; when all are parked
 * it goes to the next event. A store never runs a device: only this loop and driver code that waits do.
 */
import type { Clock } from './ports.js';

export interface Scheduled {
  readonly tasks: readonly ScheduledTask[];
  step(task: ScheduledTask): boolean;
  wakeAll(): void;
}
export interface ScheduledTask {
  readonly parked: boolean;
  readonly exited: boolean;
}

/** Rounds in which programs spin and no time passes before the clock goes on without them: free spinning must not stop the devices. */
const MAX_SPINS = 16;

/** Runs until `until` holds or nothing can ever run. Every event of the clock lets parked processes try again. */
export function schedule(kernels: readonly Scheduled[], clock: Clock, until?: () => boolean): void {
  let spins = 0;
  let lastChance = false;
  while (!until?.()) {
    const before = clock.now;
    let ran = false;
    let events = false;
    for (const kernel of kernels)
      for (const task of [...kernel.tasks]) {
        if (task.parked || task.exited) continue;
        if (kernel.step(task)) {
          ran = true;
          lastChance = false;
        }
        if (clock.pump()) {
          events = true;
          for (const each of kernels) each.wakeAll();
        }
        if (until?.()) return;
      }
    if (events) {
      spins = 0;
      lastChance = false;
      continue;
    }
    if (ran && (clock.now !== before || ++spins < MAX_SPINS)) {
      if (clock.now !== before) spins = 0;
      continue;
    }
    spins = 0;
    if (!ran && kernels.some((kernel) => kernel.tasks.some((task) => !task.parked))) continue;
    if (clock.idle()) lastChance = false;
    else if (ran) continue;
    else if (lastChance) return;
    else lastChance = true;
    for (const kernel of kernels) kernel.wakeAll();
  }
}
