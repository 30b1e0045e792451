/** The devices of `siov serve`, in the server's thread. */
import { gnrD, type Profile, sprDsa } from '@siov/idxd-device';
import { iax2, sprIax } from '@siov/idxd-device/iax';
import { BareDevice } from '@siov/stack/bare';
import { BareVdev } from '@siov/stack/vdev';
import { type ServerParts, type UserDevice, WireWriter } from '@siov/vfio-user';

/** What can be served: a device that counts, and makes faults on demand. */
interface Served extends UserDevice {
  readonly counters: Readonly<Record<(typeof counted)[number], number>>;
  /** Microseconds. */
  readonly latency?: { readonly p50: number; readonly p99: number } | undefined;
  injectHalt(reset: Reset): void;
  injectSoftwareError(error: number): void;
}
type Reset = 'software' | 'functionLevel' | 'warm' | 'cold';
const bare = (profile: Profile) => (): Served => new BareDevice({ profile, now: () => performance.now() * 1000 });

/** Names for --device. */
export const deviceTable: Readonly<Record<string, { readonly about: string; make(): Served }>> = {
  'dsa-spr': { about: "DSA of Sapphire Rapids' shape", make: bare(sprDsa) },
  'dsa-gnrd': { about: "DSA 2.0 of Granite Rapids-D's shape", make: bare(gnrD) },
  iax: { about: "IAX, the analytics accelerator, of Sapphire Rapids' shape", make: bare(sprIax) },
  'iax-spr': { about: 'the same', make: bare(sprIax) },
  'iax-2.0': { about: 'an IAX of version 2.0', make: bare(iax2) },
  vdev: { about: "the mdev model's virtual device (one queue), for shared guest memory", make: () => new BareVdev() },
};

export interface ServeData {
  readonly paths: readonly string[];
  readonly device: string;
  /** A file that what goes over the sockets is recorded in. */
  readonly wire?: string;
}
const counted = ['descriptors', 'failed', 'bytes', 'faults', 'interrupts'] as const;
/** What is counted, for each device; last, how many microseconds descriptors took, from the store that made them whole to the record. */
export const counterNames = [...counted, 'p50', 'p99'] as const;
/** How often that is worked out, in milliseconds. */
const LATENCY_MS = 500;

/** Faults on demand. */
export type Injection =
  | { readonly what: 'halt'; readonly reset: Reset; readonly device: number }
  | { readonly what: 'swerror'; readonly error: number; readonly device: number };

export default function devices(data: ServeData): ServerParts {
  const recorder = data.wire === undefined ? undefined : new WireWriter(data.wire);
  const made = data.paths.map((path) => ({ path, device: deviceTable[data.device]!.make() }));
  let ended = false;
  let looked = 0;
  return {
    devices: made,
    ...(recorder ? { observer: recorder.observer } : {}),
    close() {
      ended = true;
      recorder?.close();
    },
    counters(out) {
      if (!ended) recorder?.flush();
      const now = performance.now();
      const latencies = ended || now - looked > LATENCY_MS;
      if (latencies) looked = now;
      for (const [i, { device }] of made.entries()) {
        const { counters } = device;
        const at = i * counterNames.length;
        for (const [j, name] of counted.entries()) out[at + j] = counters[name];
        const { p50 = 0, p99 = 0 } = (latencies && device.latency) || {};
        if (latencies) out.set([p50, p99], at + counted.length);
      }
    },
    message(message) {
      const injection = message as Injection;
      const device = made[injection.device]?.device;
      if (injection.what === 'halt') device?.injectHalt(injection.reset);
      else device?.injectSoftwareError(injection.error);
    },
  };
}
