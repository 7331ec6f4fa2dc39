// Runs kernels block by block and thread by thread. See device.h.
#include "../port.cuh"

#include <mutex>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

constexpr std::size_t STACK = 256 << 10;
constexpr u32 GUARD = 1024;

struct Copy {
    void* to;
    const void* from;
    bool inside;
};

struct Fiber {
    void* stack = nullptr;
#if defined(__x86_64__)
    void* at = nullptr;
#else
    ucontext_t at;
#endif
    Index index{};
    bool done = false;
    // The fiber goes on when the number is not `seen` any more; null when it waits for nothing.
    const u32* awaited = nullptr;
    u32 seen = 0;
    // Asynchronous copies, and where each committed group ends.
    std::vector<Copy> copies;
    std::vector<std::size_t> groups;
};

struct Warp {
    Lane lanes[WARP];
    Collective operation = Collective::NONE;
    int size = 0, arrived = 0;
    u32 round = 0;
};

struct Machine {
    std::mutex one_at_a_time;
    u32 order = 0;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<u32> turns;
    u8* shared = nullptr;
    u32 threads = 0, arrived = 0, round = 0, current = 0;
    Body body{};
#if defined(__x86_64__)
    void* scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
} machine;

Fiber& me() { return machine.fibers[machine.current]; }

#if defined(__x86_64__)
// Saves what a call must keep, swaps stacks, and goes on where the other fiber did the same.
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
.text
.hidden emulation_switch
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emulation_switch, .-emulation_switch
)");

void to_scheduler() { emulation_switch(&me().at, machine.scheduler); }
void to_fiber(Fiber& fiber) { emulation_switch(&machine.scheduler, fiber.at); }
#else
void to_scheduler() { swapcontext(&me().at, &machine.scheduler); }
void to_fiber(Fiber& fiber) { swapcontext(&machine.scheduler, &fiber.at); }
#endif

void thread_main() {
    machine.body.run(machine.body.data);
    me().done = true;
    to_scheduler();
    fail("a finished thread went on");
}

void prepare(Fiber& fiber) {
    if (!fiber.stack) {
        void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) fail("no memory for a stack");
        fiber.stack = memory;
    }
    fiber.done = false;
    fiber.awaited = nullptr;
    fiber.copies.clear();
    fiber.groups.clear();
#if defined(__x86_64__)
    // As if `thread_main` had been called: the stack is aligned but for a return address.
    u64* top = reinterpret_cast<u64*>(static_cast<u8*>(fiber.stack) + STACK) - 3;
    top[0] = 0;
    top[-1] = reinterpret_cast<u64>(&thread_main);
    for (int i = 2; i <= 7; i++) top[-i] = 0;
    fiber.at = top - 7;
#else
    getcontext(&fiber.at);
    fiber.at.uc_stack.ss_sp = fiber.stack;
    fiber.at.uc_stack.ss_size = STACK;
    fiber.at.uc_link = nullptr;
    makecontext(&fiber.at, thread_main, 0);
#endif
}

void wait_for(const u32& round) {
    Fiber& fiber = me();
    fiber.seen = round;
    fiber.awaited = &round;
    to_scheduler();
    fiber.awaited = nullptr;
}

// The order in which the threads of a block get their turns: as they are, backwards, or mixed.
void arrange() {
    machine.turns.resize(machine.threads);
    for (u32 i = 0; i < machine.threads; i++) machine.turns[i] = i;
    if (machine.order == 0) return;
    if (machine.order == 1) {
        for (u32 i = 0; i < machine.threads; i++) machine.turns[i] = machine.threads - 1 - i;
        return;
    }
    u64 state = machine.order * 0x9e3779b97f4a7c15ull + 1;
    for (u32 i = machine.threads - 1; i > 0; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(machine.turns[i], machine.turns[(state >> 33) % (i + 1)]);
    }
}

void run_block() {
    machine.arrived = 0;
    machine.warps.assign((machine.threads + WARP - 1) / WARP, Warp());
    for (u32 i = 0; i < machine.threads; i++) {
        prepare(machine.fibers[i]);
        machine.fibers[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        machine.warps[i / WARP].size++;
    }
    u32 left = machine.threads;
    while (left > 0) {
        bool moved = false;
        for (u32 i : machine.turns) {
            Fiber& fiber = machine.fibers[i];
            if (fiber.done || (fiber.awaited && *fiber.awaited == fiber.seen)) continue;
            machine.current = i;
            threadIdx = fiber.index;
            to_fiber(fiber);
            moved = true;
            left -= fiber.done;
        }
        if (!moved) fail("threads wait for others that do not come: a barrier or a warp's operation is not reached by all");
    }
}

float low_half(u32 word) { return float_of(word << 16); }
float high_half(u32 word) { return float_of(word & 0xffff0000u); }

void multiply(Warp& warp) {
    float a[16][16], b[16][8];
    for (int l = 0; l < WARP; l++) {
        const Lane& lane = warp.lanes[l];
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i % 2 * 8, k = l % 4 * 2 + i / 2 * 8;
            a[row][k] = low_half(lane.in[4 + i]);
            a[row][k + 1] = high_half(lane.in[4 + i]);
        }
        for (int i = 0; i < 2; i++) {
            b[l % 4 * 2 + i * 8][l / 4] = low_half(lane.out[i]);
            b[l % 4 * 2 + i * 8 + 1][l / 4] = high_half(lane.out[i]);
        }
    }
    float c[16][8];
    for (int row = 0; row < 16; row++) {
        for (int col = 0; col < 8; col++) c[row][col] = 0.0f;
        for (int k = 0; k < 16; k++) {
            for (int col = 0; col < 8; col++) c[row][col] += a[row][k] * b[k][col];
        }
    }
    for (int l = 0; l < WARP; l++) {
        Lane& lane = warp.lanes[l];
        for (int i = 0; i < 4; i++) {
            lane.out[i] = bits_of(float_of(lane.in[i]) + c[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2]);
        }
    }
}

void read_matrices(Warp& warp, bool transposed) {
    u16 value[4][8][8];
    for (int l = 0; l < WARP; l++) {
        require_aligned(warp.lanes[l].address);
        std::memcpy(value[l / 8][l % 8], warp.lanes[l].address, 16);
    }
    for (int l = 0; l < WARP; l++) {
        for (int i = 0; i < 4; i++) {
            const int row = l / 4, col = l % 4 * 2;
            const u16 first = transposed ? value[i][col][row] : value[i][row][col];
            const u16 second = transposed ? value[i][col + 1][row] : value[i][row][col + 1];
            warp.lanes[l].out[i] = first | static_cast<u32>(second) << 16;
        }
    }
}

void carry_out(Warp& warp) {
    bool any = false;
    switch (warp.operation) {
        case Collective::SHUFFLE_XOR:
            for (int l = 0; l < WARP; l++) warp.lanes[l].out[0] = warp.lanes[l ^ warp.lanes[l].in[1]].in[0];
            break;
        case Collective::ANY:
            for (const Lane& lane : warp.lanes) any |= lane.in[0] != 0;
            for (Lane& lane : warp.lanes) lane.out[0] = any;
            break;
        case Collective::MMA_BF16: multiply(warp); break;
        case Collective::LDMATRIX: read_matrices(warp, false); break;
        case Collective::LDMATRIX_TRANS: read_matrices(warp, true); break;
        case Collective::NONE: break;
    }
}

Warp& my_warp() { return machine.warps[machine.current / WARP]; }

void finish_copies(Fiber& fiber, std::size_t end) {
    for (std::size_t i = 0; i < end; i++) {
        const Copy& copy = fiber.copies[i];
        if (copy.inside) std::memcpy(copy.to, copy.from, 16);
        else std::memset(copy.to, 0, 16);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + static_cast<std::ptrdiff_t>(end));
}

}  // namespace

u8* shared_memory() { return machine.shared; }

void fail(const char* what) {
    std::fprintf(stderr, "kernel emulation, block %u %u %u, thread %u %u %u: %s\n", blockIdx.x, blockIdx.y, blockIdx.z,
                 threadIdx.x, threadIdx.y, threadIdx.z, what);
    std::abort();
}

void barrier() {
    if (++machine.arrived < machine.threads) return wait_for(machine.round);
    machine.arrived = 0;
    machine.round++;
}

Lane& lane() { return my_warp().lanes[machine.current % WARP]; }

void together(Collective operation) {
    Warp& warp = my_warp();
    if (warp.size != WARP) fail("an operation of a whole warp in a part of one");
    if (warp.arrived > 0 && warp.operation != operation) fail("lanes of a warp come to different operations");
    warp.operation = operation;
    if (++warp.arrived < WARP) return wait_for(warp.round);
    carry_out(warp);
    warp.arrived = 0;
    warp.round++;
}

void copy_start(void* to, const void* from, bool inside) {
    std::memset(to, 0xff, 16);
    me().copies.push_back({to, from, inside});
}

void copy_commit() { me().groups.push_back(me().copies.size()); }

void copy_wait(int left) {
    Fiber& fiber = me();
    const std::size_t count = fiber.groups.size();
    if (count <= static_cast<std::size_t>(left)) return;
    const std::size_t through = count - static_cast<std::size_t>(left), end = fiber.groups[through - 1];
    finish_copies(fiber, end);
    fiber.groups.erase(fiber.groups.begin(), fiber.groups.begin() + static_cast<std::ptrdiff_t>(through));
    for (std::size_t& group : fiber.groups) group -= end;
}

void launch(Index grid, Index block, u32 shared_bytes, Body body) {
    const std::lock_guard<std::mutex> guard(machine.one_at_a_time);
    gridDim = grid;
    blockDim = block;
    machine.threads = block.x * block.y * block.z;
    machine.body = body;
    if (machine.threads == 0 || machine.threads > 1024) fail("a block of no threads or of too many");
    if (machine.fibers.size() < machine.threads) machine.fibers.resize(machine.threads);
    arrange();
    // Bytes behind the end show whether somebody wrote there.
    machine.shared = static_cast<u8*>(std::aligned_alloc(128, (shared_bytes + 127) / 128 * 128 + GUARD));
    const u64 blocks = static_cast<u64>(grid.x) * grid.y * grid.z;
    for (u64 i = 0; i < blocks; i++) {
        // Blocks have no order either.
        const u64 at = machine.order == 1 ? blocks - 1 - i : i;
        blockIdx = {static_cast<u32>(at % grid.x), static_cast<u32>(at / grid.x % grid.y),
                    static_cast<u32>(at / grid.x / grid.y)};
        std::memset(machine.shared, 0xff, shared_bytes + GUARD);
        run_block();
        for (u32 byte = shared_bytes; byte < shared_bytes + GUARD; byte++) {
            if (machine.shared[byte] != 0xff) fail("shared memory was written behind its end");
        }
    }
    std::free(machine.shared);
    machine.shared = nullptr;
}

}  // namespace emulation

// How threads get their turns from now on: 0 as they are numbered, 1 backwards, any other number mixed by it.
extern "C" void emulation_order(unsigned order) {
    const std::lock_guard<std::mutex> guard(emulation::machine.one_at_a_time);
    emulation::machine.order = order;
}
