/** Register accesses: REGION_READ, REGION_WRITE, REGION_WRITE_MULTI. They never wait for anything. vfio-user.rst, "Read and Write Operations". */
import { Errno } from '@siov/layout/uapi';
import { RegionFlag } from '@siov/vfio-mdev/uapi';
import { MAX_DATA } from './limits.js';
import type { CommandRow, Message, Session } from './session.js';
import { Command, MultiWrite, RegionAccess, WriteMulti } from './spec/protocol.js';

const { get, bytes: HEAD } = RegionAccess;
/** An offset in bytes; beyond every region when it does not fit a Number. */
const offsetOf = (words: Uint32Array, at: number): number => get.offsetLow(words, at) + get.offsetHigh(words, at) * 2 ** 32;

/** 0, or why not. */
function refusal(s: Session, region: number, offset: number, count: number, right: number): number {
  const info = s.regions[region];
  if (!info || !(info.flags & right) || count > MAX_DATA || offset + count > info.size) return -Errno.EINVAL;
  return s.migration.copying && !s.peer.accessInStopCopy ? -Errno.EINVAL : 0;
}

function read(s: Session, m: Message): number {
  const region = get.region(m.words, 0);
  const count = get.count(m.words, 0);
  const offset = offsetOf(m.words, 0);
  if (count === 0 && s.peer.emptyAccessBare) return 0;
  let answer = refusal(s, region, offset, count, RegionFlag.READ);
  if (answer === 0 && count > 0) {
    const out = outOf(s, count);
    const done = s.device.read(region, offset, out);
    if (done !== count) answer = done < 0 ? done : -Errno.EIO;
  }
  if (answer < 0) {
    if (s.peer.accessErrors || count > MAX_DATA) return answer;
    s.payload.fill(0xff, HEAD, HEAD + count);
  }
  echo(s, m);
  return HEAD + count;
}

function write(s: Session, m: Message): number {
  const count = get.count(m.words, 0);
  if (count === 0 && s.peer.emptyAccessBare) return 0;
  let answer = count === m.length - HEAD ? refusal(s, get.region(m.words, 0), offsetOf(m.words, 0), count, RegionFlag.WRITE) : -Errno.EINVAL;
  if (answer === 0 && count > 0) {
    const done = s.device.write(get.region(m.words, 0), offsetOf(m.words, 0), m.bytes.subarray(m.at + HEAD, m.at + HEAD + count));
    if (done !== count) answer = done < 0 ? done : -Errno.EIO;
  }
  if (answer < 0 && s.peer.accessErrors) return answer;
  echo(s, m);
  return HEAD;
}

/** All of them up to the first that is refused; the reply says how many were done. */
function writeMulti(s: Session, m: Message): number {
  const count = WriteMulti.get.countLow(m.words, 0);
  if (WriteMulti.get.countHigh(m.words, 0) !== 0 || m.length !== WriteMulti.bytes + count * MultiWrite.bytes) return -Errno.EINVAL;
  const words = entry;
  let done = 0;
  for (; done < count; done++) {
    const at = m.at + WriteMulti.bytes + done * MultiWrite.bytes;
    for (let i = 0; i < 4; i++) words[i] = m.view.getUint32(at + i * 4, true);
    const bytes = get.count(words, 0);
    if (bytes > 8 || refusal(s, get.region(words, 0), offsetOf(words, 0), bytes, RegionFlag.WRITE) < 0) break;
    if (bytes > 0 && s.device.write(get.region(words, 0), offsetOf(words, 0), m.bytes.subarray(at + HEAD, at + HEAD + bytes)) !== bytes) break;
  }
  if (done < count && done === 0) return -Errno.EINVAL;
  s.payloadView.setUint32(0, done, true);
  s.payloadView.setUint32(4, 0, true);
  return WriteMulti.bytes;
}
const entry = new Uint32Array(RegionAccess.bytes / 4);

/** The place of read data in the reply; views of the usual sizes are the session's. */
function outOf(s: Session, count: number): Uint8Array {
  return s.smallReads[count] ?? s.payload.subarray(HEAD, HEAD + count);
}

function echo(s: Session, m: Message): void {
  const { payloadView: to } = s;
  for (let i = 0; i < HEAD; i += 4) to.setUint32(i, m.words[i >>> 2]!, true);
}

export const regionCommands = {
  [Command.REGION_READ]: { bytes: HEAD, stopped: true, run: read },
  [Command.REGION_WRITE]: { bytes: HEAD, stopped: true, run: write },
  [Command.REGION_WRITE_MULTI]: { bytes: WriteMulti.bytes, stopped: true, run: writeMulti },
} satisfies Record<number, CommandRow>;
