/** What the parts have in common, as the recipes see it. */

export interface Clock {
  readonly now: number;
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
  spend(ns: number): void;
  pump(): boolean;
  idle(): boolean;
  wait(until: () => boolean): boolean;
  defer(work: () => void): void;
}
/** One sink for the typed events of `@siov/layout/events`. */
export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}
