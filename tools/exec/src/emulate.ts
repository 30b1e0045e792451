/**
 * Instructions that reach a device's page by loads and stores, and the waits that a processor lacks: what the shim does not carry out itself.
 * What compilers and C libraries write is here; anything else is the program's own fault. Intel SDM 2, "Instruction Format" and the opcode
 * map; the registers are those of ucontext_t (sys/ucontext.h, REG_*).
 */

/** Words of `gregs` by the numbers of the instruction format: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15. */
const ORDER = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7] as const;
const RIP = 16;
const FLAGS = 17;
const [RAX, RCX, RSI, RDI] = [13, 14, 9, 8] as const;
const Flag = { carry: 0x001n, parity: 0x004n, adjust: 0x010n, zero: 0x040n, sign: 0x080n, direction: 0x400n, overflow: 0x800n } as const;
const ARITHMETIC = Flag.carry | Flag.parity | Flag.adjust | Flag.zero | Flag.sign | Flag.overflow;
/** How many steps of a repeated instruction one trap carries out. */
const REPEAT = 512;

/** Memory as the instruction finds it. A width is in bytes; undefined or false: there is none such. */
export interface Target {
  load(address: bigint, width: number): bigint | undefined;
  store(address: bigint, width: number, value: bigint): boolean;
  /** The low 16 bytes of a vector register; of those above 15, and of wider ones above that, the model keeps nothing. */
  vector(index: number): bigint;
  setVector(index: number, value: bigint): void;
}

const mask = (width: number): bigint => (1n << BigInt(8 * width)) - 1n;
const signed = (value: bigint, width: number): bigint => BigInt.asIntN(8 * width, value);

interface Instruction {
  readonly operand16: boolean;
  readonly repeat: number;
  readonly rex: number;
  /** Bytes of the operand as prefixes say: 2, 4, 8. */
  readonly wide: number;
  /** Of ModRM. */
  readonly reg: number;
  readonly address: bigint;
}

class Reader {
  at = 0;
  readonly code: Uint8Array;
  constructor(code: Uint8Array) {
    this.code = code;
  }
  byte(): number {
    const byte = this.code[this.at++];
    if (byte === undefined) throw UNKNOWN;
    return byte;
  }
  signed(bytes: number): bigint {
    let value = 0n;
    for (let i = 0; i < bytes; i++) value |= BigInt(this.byte()) << BigInt(8 * i);
    return signed(value, bytes);
  }
}
/** Leaves the decoder: the instruction is none of those. */
const UNKNOWN = new Error('unknown instruction');

/**
 * Carries out the instruction in `code`, with the registers `g`, which are as after it when this is true. Otherwise nothing was changed.
 */
export function emulate(code: Uint8Array, g: BigUint64Array, target: Target): boolean {
  try {
    return new Emulation(code, g, target).run();
  } catch (error) {
    if (error === UNKNOWN) return false;
    throw error;
  }
}

class Emulation {
  readonly #in: Reader;
  readonly #g: BigUint64Array;
  readonly #target: Target;
  #operand16 = false;
  #address32 = false;
  #repeat = 0;
  #rex = 0;
  /** Bits of a VEX or EVEX prefix: bytes of the vector, 0 without. */
  #vector = 0;
  #extended = false;

  constructor(code: Uint8Array, g: BigUint64Array, target: Target) {
    this.#in = new Reader(code);
    this.#g = g;
    this.#target = target;
  }

  run(): boolean {
    let byte = this.#in.byte();
    for (; ; byte = this.#in.byte()) {
      if (byte === 0x66) this.#operand16 = true;
      else if (byte === 0x67) this.#address32 = true;
      else if (byte === 0xf2 || byte === 0xf3) this.#repeat = byte;
      // Loads and stores by FS and GS reach no device.
      else if (byte !== 0x2e && byte !== 0x36 && byte !== 0x3e && byte !== 0x26 && byte !== 0xf0) break;
    }
    if ((byte & 0xf0) === 0x40) {
      this.#rex = byte;
      byte = this.#in.byte();
    }
    if (byte === 0xc5 || byte === 0xc4 || byte === 0x62) return this.#vex(byte);
    if (byte === 0x0f) return this.#twoBytes(this.#in.byte());
    return this.#oneByte(byte);
  }

  // --- operands

  #modrm(immediate: number): Instruction {
    const { wide } = this;
    const modrm = this.#in.byte();
    const mod = modrm >> 6;
    if (mod === 3) throw UNKNOWN;
    let base = modrm & 7;
    let index = 4;
    let scale = 0;
    if (base === 4) {
      const sib = this.#in.byte();
      base = sib & 7;
      index = ((sib >> 3) & 7) | (this.#rex & 2 ? 8 : 0);
      scale = sib >> 6;
    }
    const none = mod === 0 && base === 5;
    let address = mod === 1 ? this.#in.signed(1) * BigInt(this.#scaled) : mod === 2 || none ? this.#in.signed(4) : 0n;
    if (!none) address += this.#g[ORDER[base | (this.#rex & 1 ? 8 : 0)]!]!;
    else if ((modrm & 7) === 5) address += this.#g[RIP]! + BigInt(this.#in.at + immediate);
    if (index !== 4) address += this.#g[ORDER[index]!]! << BigInt(scale);
    return {
      operand16: this.#operand16,
      repeat: this.#repeat,
      rex: this.#rex,
      wide,
      reg: ((modrm >> 3) & 7) | (this.#rex & 4 ? 8 : 0),
      address: BigInt.asUintN(this.#address32 ? 32 : 64, address),
    };
  }
  get wide(): number {
    return this.#rex & 8 ? 8 : this.#operand16 ? 2 : 4;
  }
  /** EVEX counts displacements of one byte in vectors. */
  get #scaled(): number {
    return this.#extended ? this.#vector : 1;
  }
  #get(number: number, width: number): bigint {
    const high = width === 1 && !this.#rex && number >= 4 && number < 8;
    return high ? (this.#g[ORDER[number - 4]!]! >> 8n) & 0xffn : this.#g[ORDER[number]!]! & mask(width);
  }
  #set(number: number, width: number, value: bigint): void {
    const high = width === 1 && !this.#rex && number >= 4 && number < 8;
    const at = ORDER[high ? number - 4 : number]!;
    if (width >= 4) this.#g[at] = value & mask(width);
    else {
      const shift = high ? 8n : 0n;
      this.#g[at] = (this.#g[at]! & ~(mask(width) << shift)) | ((value & mask(width)) << shift);
    }
  }
  #load(address: bigint, width: number): bigint {
    const value = this.#target.load(address, width);
    if (value === undefined) throw UNKNOWN;
    return value;
  }
  #store(address: bigint, width: number, value: bigint): void {
    if (!this.#target.store(address, width, value & mask(width))) throw UNKNOWN;
  }
  #done(): true {
    this.#g[RIP] = BigInt.asUintN(64, this.#g[RIP]! + BigInt(this.#in.at));
    return true;
  }

  // --- general registers

  #oneByte(opcode: number): boolean {
    const { wide } = this;
    const width = opcode & 1 ? wide : 1;
    if (opcode < 0x40 && (opcode & 7) < 4) {
      const { reg, address } = this.#modrm(0);
      const memory = this.#load(address, width);
      const own = this.#get(reg, width);
      const toRegister = (opcode & 2) !== 0;
      const result = this.#alu(opcode >> 3, toRegister ? own : memory, toRegister ? memory : own, width);
      if (result !== undefined && toRegister) this.#set(reg, width, result);
      else if (result !== undefined) this.#store(address, width, result);
      return this.#done();
    }
    switch (opcode) {
      case 0x63: {
        const { reg, address } = this.#modrm(0);
        this.#set(reg, wide, signed(this.#load(address, 4), 4));
        return this.#done();
      }
      case 0x80:
      case 0x81:
      case 0x83: {
        const bytes = opcode === 0x81 ? Math.min(4, width) : 1;
        const { reg, address } = this.#modrm(bytes);
        const result = this.#alu(reg & 7, this.#load(address, width), this.#in.signed(bytes) & mask(width), width);
        if (result !== undefined) this.#store(address, width, result);
        return this.#done();
      }
      case 0x84:
      case 0x85: {
        const { reg, address } = this.#modrm(0);
        this.#alu(4, this.#load(address, width), this.#get(reg, width), width);
        return this.#done();
      }
      case 0x88:
      case 0x89: {
        const { reg, address } = this.#modrm(0);
        this.#store(address, width, this.#get(reg, width));
        return this.#done();
      }
      case 0x8a:
      case 0x8b: {
        const { reg, address } = this.#modrm(0);
        this.#set(reg, width, this.#load(address, width));
        return this.#done();
      }
      case 0xc6:
      case 0xc7: {
        const bytes = Math.min(4, width);
        const { reg, address } = this.#modrm(bytes);
        if (reg & 7) return false;
        this.#store(address, width, this.#in.signed(bytes));
        return this.#done();
      }
      case 0xf6:
      case 0xf7: {
        const bytes = Math.min(4, width);
        const { reg, address } = this.#modrm(bytes);
        if ((reg & 7) > 1) return false;
        this.#alu(4, this.#load(address, width), this.#in.signed(bytes) & mask(width), width);
        return this.#done();
      }
      case 0xfe:
      case 0xff: {
        const { reg, address } = this.#modrm(0);
        if ((reg & 7) > 1) return false;
        const carry = this.#g[FLAGS]! & Flag.carry;
        const result = this.#alu(reg & 7 ? 5 : 0, this.#load(address, width), 1n, width)!;
        this.#g[FLAGS] = (this.#g[FLAGS]! & ~Flag.carry) | carry;
        this.#store(address, width, result);
        return this.#done();
      }
      case 0xa4:
      case 0xa5:
      case 0xaa:
      case 0xab:
        return this.#string(width, opcode >= 0xaa);
      default:
        return false;
    }
  }

  /** add, or, adc, sbb, and, sub, xor, cmp: the result, or undefined where there is none to keep. */
  #alu(operation: number, a: bigint, b: bigint, width: number): bigint | undefined {
    const carry = (operation === 2 || operation === 3) && this.#g[FLAGS]! & Flag.carry ? 1n : 0n;
    const minus = operation === 3 || operation === 5 || operation === 7;
    const whole = operation === 1 ? a | b : operation === 4 ? a & b : operation === 6 ? a ^ b : minus ? a - b - carry : a + b + carry;
    const result = whole & mask(width);
    const top = 1n << BigInt(8 * width - 1);
    const logic = operation === 1 || operation === 4 || operation === 6;
    let flags = this.#g[FLAGS]! & ~ARITHMETIC;
    if (result === 0n) flags |= Flag.zero;
    if (result & top) flags |= Flag.sign;
    if (evenBits(result & 0xffn)) flags |= Flag.parity;
    if (!logic) {
      if (whole !== result) flags |= Flag.carry;
      if ((a ^ b ^ result) & 0x10n) flags |= Flag.adjust;
      if ((minus ? a ^ b : ~(a ^ b)) & (a ^ result) & top) flags |= Flag.overflow;
    }
    this.#g[FLAGS] = flags;
    return operation === 7 ? undefined : result;
  }

  /** MOVS and STOS, as far as they reach in one trap: a repeated one that is not at its end comes again. */
  #string(width: number, stos: boolean): boolean {
    const g = this.#g;
    const repeats = this.#repeat !== 0;
    const step = BigInt(g[FLAGS]! & Flag.direction ? -width : width);
    for (let n = 0; n < REPEAT && !(repeats && g[RCX] === 0n); n++) {
      const value = stos ? g[RAX]! & mask(width) : this.#target.load(g[RSI]!, width);
      if (value === undefined || !this.#target.store(g[RDI]!, width, value)) {
        // What was done stays done; the instruction then faults where it is.
        if (n > 0) return true;
        throw UNKNOWN;
      }
      g[RDI] = BigInt.asUintN(64, g[RDI]! + step);
      if (!stos) g[RSI] = BigInt.asUintN(64, g[RSI]! + step);
      if (!repeats) return this.#done();
      g[RCX] = g[RCX]! - 1n;
    }
    return g[RCX] === 0n ? this.#done() : true;
  }

  #twoBytes(opcode: number): boolean {
    const { wide } = this;
    if (opcode === 0xae) {
      // UMONITOR, UMWAIT and TPAUSE name registers; waking at once is allowed.
      if ((this.#in.byte() & 0xf8) !== 0xf0 || !(this.#repeat || this.#operand16)) return false;
      if (this.#repeat !== 0xf3) this.#g[FLAGS] = this.#g[FLAGS]! & ~ARITHMETIC;
      return this.#done();
    }
    if ((opcode & 0xf6) === 0xb6) {
      const width = opcode & 1 ? 2 : 1;
      const { reg, address } = this.#modrm(0);
      const value = this.#load(address, width);
      this.#set(reg, wide, opcode & 8 ? signed(value, width) : value);
      return this.#done();
    }
    if (opcode === 0xc3) {
      const { reg, address } = this.#modrm(0);
      this.#store(address, wide, this.#get(reg, wide));
      return this.#done();
    }
    return this.#move(opcode, this.#operand16 ? 0x66 : this.#repeat, 16);
  }

  // --- vectors

  #vex(prefix: number): boolean {
    const first = this.#in.byte();
    let map = 1;
    let last = first;
    if (prefix === 0xc4) {
      map = first & 0x1f;
      last = this.#in.byte();
      this.#rex = ((~first >> 5) & 7) | (last & 0x80 ? 8 : 0);
    } else if (prefix === 0xc5) this.#rex = first & 0x80 ? 0 : 4;
    else {
      map = first & 7;
      last = this.#in.byte();
      const third = this.#in.byte();
      this.#extended = true;
      this.#rex = (~first >> 5) & 7;
      // Masked ones are of no C library's copies.
      if (third & 7) return false;
      this.#vector = 16 << ((third >> 5) & 3);
    }
    if (!this.#extended) this.#vector = last & 4 ? 32 : 16;
    if (map !== 1) return false;
    return this.#move(this.#in.byte(), [0, 0x66, 0xf3, 0xf2][last & 3]!, this.#vector);
  }

  /** Moves of vectors between a register and memory. */
  #move(opcode: number, prefix: number, bytes: number): boolean {
    const row = moves.find(([code, needs]) => code === opcode && needs.includes(prefix));
    if (!row) return false;
    const [, , store, fixed] = row;
    const width = fixed ?? bytes;
    const { reg, address } = this.#modrm(0);
    const known = this.#vector <= 16 && !this.#extended;
    if (!store && !known) return false;
    let value = store && known ? this.#target.vector(reg) : 0n;
    for (let done = 0; done < width; done += 8) {
      const part = Math.min(8, width - done);
      const shift = BigInt(8 * done);
      if (store) this.#store(address + BigInt(done), part, value >> shift);
      else value |= this.#load(address + BigInt(done), part) << shift;
    }
    if (!store) this.#target.setVector(reg, value);
    return this.#done();
  }
}

/** Opcode after 0F, prefixes, whether it stores, and bytes where they are not the vector's. */
const moves: readonly (readonly [opcode: number, prefixes: readonly number[], store: boolean, bytes?: number])[] = [
  [0x10, [0, 0x66], false],
  [0x11, [0, 0x66], true],
  [0x11, [0xf3], true, 4],
  [0x11, [0xf2], true, 8],
  [0x28, [0, 0x66], false],
  [0x29, [0, 0x66], true],
  [0x2b, [0, 0x66], true],
  [0x13, [0, 0x66], true, 8],
  [0x6f, [0x66, 0xf3, 0xf2], false],
  [0x7f, [0x66, 0xf3, 0xf2], true],
  [0xd6, [0x66], true, 8],
  [0xe7, [0x66], true],
];

function evenBits(byte: bigint): boolean {
  let even = true;
  for (let rest = byte; rest; rest >>= 1n) if (rest & 1n) even = !even;
  return even;
}
