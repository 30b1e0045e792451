/** The devices of `siov serve`, in the server's thread. */
import { gnrD, type Profile, sprDsa } from '@siov/idxd-device';
import { BareDevice } from '@siov/stack/bare';
import { type ServerParts, WireWriter } from '@siov/vfio-user';

/** Names for --device. */
export const deviceTable: Readonly<Record<string, { readonly about: string; readonly profile: Profile }>> = {
  'dsa-spr': { about: "DSA of Sapphire Rapids' shape", profile: sprDsa },
  'dsa-gnrd': { about: "DSA 2.0 of Granite Rapids-D's shape", profile: gnrD },
};

export interface ServeData {
  readonly paths: readonly string[];
  readonly device: string;
  /** A file that what goes over the sockets is recorded in. */
  readonly wire?: string;
}
/** What is counted, for each device. */
export const counterNames = ['descriptors', 'failed', 'bytes', 'faults', 'interrupts'] as const;

/** Faults on demand. */
export type Injection =
  | { readonly what: 'halt'; readonly reset: 'software' | 'functionLevel' | 'warm' | 'cold'; readonly device: number }
  | { readonly what: 'swerror'; readonly error: number; readonly device: number };

export default function devices(data: ServeData): ServerParts {
  const recorder = data.wire === undefined ? undefined : new WireWriter(data.wire);
  const made = data.paths.map((path) => ({ path, device: new BareDevice({ profile: deviceTable[data.device]!.profile }) }));
  return {
    devices: made,
    ...(recorder ? { observer: recorder.observer, close: () => recorder.close() } : {}),
    counters(out) {
      recorder?.flush();
      for (const [i, { device }] of made.entries()) {
        const { counters } = device;
        for (const [j, name] of counterNames.entries()) out[i * counterNames.length + j] = counters[name];
      }
    },
    message(message) {
      const injection = message as Injection;
      const device = made[injection.device]?.device.idxd;
      if (injection.what === 'halt') device?.injectHalt(injection.reset);
      else device?.injectSoftwareError(injection.error);
    },
  };
}
