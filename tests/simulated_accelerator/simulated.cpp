// An accelerator that does not exist: two cards, whose memory is the host's and whose operations are the CPU's.
//
// What it keeps of a real one is what programs get wrong. Tensors on a card cannot be mixed with the host's or with the
// other card's; and a ledger records what was launched on a card, and when the host waited for it. It runs nothing
// asynchronously: an operation is done when its launch returns, and "pending" says what the host could not rely on yet.
//
// PyTorch reserves the dispatch key PrivateUse1 for such devices. The parts of this file are those that it asks for:
// memory, the current device, random numbers, hooks, operators, autocast; and at the end what Python reads.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <array>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace {

using at::Tensor;
using c10::DeviceIndex;

constexpr auto SIM = c10::DeviceType::PrivateUse1;
constexpr DeviceIndex CARDS = 2;
constexpr int64_t MEMORY = int64_t{8} << 30;  // bytes a card; only what is allocated takes the host's memory

// ---------------------------------------------------------------------------------------------------------------------
// The ledger

struct Card {
  int64_t pending = 0;  // launches since the host last waited for this card
  int64_t synchronizations = 0;
  int64_t allocated = 0;  // bytes
  std::map<std::string, int64_t> launches;  // by operation
};

std::mutex mutex;  // of all that follows: the backward pass runs on a thread for each card
std::array<Card, CARDS> cards;
std::map<std::string, int64_t> waits;  // by cause

// False while an operator runs on the CPU in the card's place: the copies that this takes are not the program's.
thread_local bool counting = true;

struct Uncounted {
  const bool before = counting;
  Uncounted() { counting = false; }
  ~Uncounted() { counting = before; }
};

thread_local std::array<c10::StreamId, CARDS> streams{};  // the current one of each card; 0 is the default
c10::StreamId last_stream = 0;

void count_launch(DeviceIndex card, const std::string& name) {
  if (!counting) return;
  std::lock_guard<std::mutex> lock(mutex);
  cards[card].pending++;
  cards[card].launches[name]++;
}

void count_wait(DeviceIndex card, const std::string& cause) {
  if (!counting) return;
  std::lock_guard<std::mutex> lock(mutex);
  cards[card].pending = 0;
  waits[cause]++;
}

void synchronize(DeviceIndex card) {
  std::lock_guard<std::mutex> lock(mutex);
  cards[card].pending = 0;
  cards[card].synchronizations++;
}

// ---------------------------------------------------------------------------------------------------------------------
// The current card and its memory

thread_local DeviceIndex current = 0;

DeviceIndex or_current(DeviceIndex card) { return card < 0 ? current : card; }

void set_current(DeviceIndex card) {
  TORCH_CHECK(card < CARDS, "there is no card ", int(card), ": this accelerator has ", int(CARDS));
  current = or_current(card);
}

struct Block {
  void* data;
  int64_t bytes;
  DeviceIndex card;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  c10::free_cpu(block->data);
  std::lock_guard<std::mutex> lock(mutex);
  cards[block->card].allocated -= block->bytes;
  delete block;
}

struct Memory final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto size = static_cast<int64_t>(bytes);
    {
      std::lock_guard<std::mutex> lock(mutex);
      auto& allocated = cards[current].allocated;
      TORCH_CHECK_WITH(OutOfMemoryError, size <= MEMORY - allocated, "the simulated accelerator is out of memory: ",
                       size, " bytes asked for, ", MEMORY - allocated, " of card ", int(current), " are free");
      allocated += size;
    }
    void* data = c10::alloc_cpu(bytes);
    return {data, new Block{data, size, current}, &release, c10::Device(SIM, current)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex card) override {
    std::lock_guard<std::mutex> lock(mutex);
    return {MEMORY - cards[card].allocated, MEMORY};
  }
  // There is no cache here that could give memory out again.
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex) override { return {}; }
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex) override {}
};

Memory memory;
REGISTER_ALLOCATOR(SIM, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return SIM; }
  DeviceIndex deviceCount() const noexcept override { return CARDS; }
  c10::Device getDevice() const override { return {SIM, current}; }
  void setDevice(c10::Device device) const override { set_current(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = or_current(device.index()); }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  void synchronizeDevice(DeviceIndex card) const override { synchronize(or_current(card)); }

  // Work is done when it was launched, so streams and events need not be kept in order.
  static c10::Stream stream_of(c10::Device device, c10::StreamId id) {
    return c10::Stream(c10::Stream::UNSAFE, {SIM, or_current(device.index())}, id);
  }
  c10::Stream getStream(c10::Device device) const override {
    return stream_of(device, streams[or_current(device.index())]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream_of(device, 0); }
  c10::Stream getNewStream(c10::Device device, int) const override {
    std::lock_guard<std::mutex> lock(mutex);
    return stream_of(device, ++last_stream);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    auto before = getStream(stream.device());
    streams[stream.device_index()] = stream.id();
    return before;
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream& stream) const override { synchronize(stream.device_index()); }
  void record(void**, const c10::Stream&, DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// ---------------------------------------------------------------------------------------------------------------------
// Random numbers: the CPU's generator under the card's name, so that it is refused where the CPU's is wanted

struct CardGenerator final : at::CPUGeneratorImpl {
  explicit CardGenerator(DeviceIndex card) {
    device_ = {SIM, or_current(card)};
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }
};

const at::Generator& default_generator(DeviceIndex card) {
  static const std::array<at::Generator, CARDS> generators{
      at::make_generator<CardGenerator>(DeviceIndex{0}), at::make_generator<CardGenerator>(DeviceIndex{1})};
  return generators.at(or_current(card));
}

// ---------------------------------------------------------------------------------------------------------------------
// Hooks: what PyTorch's device-independent code asks

struct PinnedMemory final : c10::Allocator {
  std::set<const void*> pinned;

  static void unpin(void* data);
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    std::lock_guard<std::mutex> lock(mutex);
    pinned.insert(data);
    return {data, data, &unpin, c10::kCPU};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

PinnedMemory pinned_memory;

void PinnedMemory::unpin(void* data) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    pinned_memory.pinned.erase(data);
  }
  c10::free_cpu(data);
}

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(mutex);
  return pinned_memory.pinned.count(data) > 0;
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return CARDS; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex card) const override { set_current(card); }
  DeviceIndex exchangeDevice(DeviceIndex card) const override {
    auto before = current;
    set_current(card);
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex card) const override { return exchangeDevice(card); }
  const at::Generator& getDefaultGenerator(DeviceIndex card) const override { return default_generator(card); }
  at::Generator getNewGenerator(DeviceIndex card) const override { return at::make_generator<CardGenerator>(card); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DeviceGuard guard(storage.device());
    auto grown = memory.allocate(bytes);
    memory.copy_data(grown.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(grown));
    storage.set_nbytes(bytes);
  }
};

Hooks hooks;
const bool hooked = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// ---------------------------------------------------------------------------------------------------------------------
// Operators that know the card's memory

Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool> pin, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pin.value_or(false), "Only dense CPU tensors can be pinned");
  c10::OptionalDeviceGuard guard(device);
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool> pin) {
  TORCH_CHECK(!pin.value_or(false), "Only dense CPU tensors can be pinned");
  c10::OptionalDeviceGuard guard(device);
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(dtype));
}

// The same memory as a tensor of the CPU. An empty tensor gets memory of its own, which can grow: that of `out=` does.
Tensor as_cpu(const Tensor& tensor) {
  if (!tensor.is_privateuseone()) return tensor;
  auto options = tensor.options().device(c10::kCPU);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), options);
}

std::vector<Tensor> to_cpu(at::TensorList tensors) {
  std::vector<Tensor> found;
  for (const auto& tensor : tensors) found.push_back(as_cpu(tensor));
  return found;
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  as_cpu(to).copy_(as_cpu(from));
  if (!to.is_privateuseone()) {
    auto card = from.device().index();
    count_launch(card, "copy to the host");
    // The host may read pageable memory at once, so only a copy to pinned memory can go on while the program does.
    if (!(non_blocking && is_pinned(to.storage().data()))) count_wait(card, "copy to the host");
  } else if (!from.is_privateuseone()) {
    auto card = to.device().index();
    count_launch(card, "copy from the host");
    if (!non_blocking) count_wait(card, "blocking copy from the host");
  } else {
    count_launch(from.device().index(), from.device() == to.device() ? "copy" : "copy to the other card");
  }
  return to;
}

// How the fallback gives an operator's result to the tensor it is for. Most share their memory, and have it already.
Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (from.data_ptr() == to.data_ptr() && from.sizes() == to.sizes()) return to;
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar_dense(const Tensor& tensor) {
  count_wait(tensor.device().index(), "item");
  return at::_local_scalar_dense(as_cpu(tensor));
}

// ---------------------------------------------------------------------------------------------------------------------
// Every other operator: checked, run on the CPU, counted

// Where an operator runs, found from its tensors. As on CUDA, all of them are on one card, but for the host's 0-d
// tensors, which are passed by value, and the host's indices in `x[index]`, which are copied to the card.
struct Placement {
  std::optional<c10::Device> card;
  std::optional<c10::Device> other;  // a device that may not meet the card

  void see(const Tensor& tensor, bool host_allowed = false) {
    if (!tensor.defined()) return;
    auto device = tensor.device();
    if (device.type() == SIM && !card) {
      card = device;
    } else if (device != card && !(device.is_cpu() && (host_allowed || tensor.dim() == 0))) {
      other = device;
    }
  }
};

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto first = stack->size() - schema.arguments().size();
  Placement placement;
  for (const auto i : c10::irange(schema.arguments().size())) {
    const auto& value = (*stack)[first + i];
    if (value.isTensor()) {
      placement.see(value.toTensor());
    } else if (value.isTensorList()) {
      for (const Tensor& tensor : value.toTensorVector()) placement.see(tensor);
    } else if (value.isOptionalTensorList()) {
      for (const std::optional<Tensor>& index : value.toOptionalTensorVector()) {
        if (index) placement.see(*index, /*host_allowed=*/true);
      }
    }
  }
  const auto card = placement.card.value_or(c10::Device(SIM, current));
  TORCH_CHECK(!placement.other, "Expected all tensors to be on the same device, but found at least two devices, ", card,
              " and ", *placement.other, "! (in ", schema.name(), ")");

  at::Generator generator, cpu_generator;
  for (const auto i : c10::irange(schema.arguments().size())) {
    auto& value = (*stack)[first + i];
    if (schema.arguments()[i].name() != "generator") continue;
    generator = value.isNone() ? default_generator(card.index()) : value.toGenerator();
    TORCH_CHECK(generator.device().type() == SIM, "Expected a '", card.type(),
                "' device type for generator but found '", generator.device().type(), "'");
    cpu_generator = generator.clone();
    value = cpu_generator;
  }

  {
    Uncounted uncounted;
    at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
  }
  if (generator.defined()) generator.set_state(cpu_generator.get_state());

  count_launch(card.index(), schema.name());
  // Of such a result the host has to know the size, or the value.
  if (op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output)) {
    count_wait(card.index(), "result that depends on values");
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

// Nothing is done later than it was launched, so no memory has to be kept for another stream.
void record_stream(Tensor&, c10::Stream) {}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("record_stream", &record_stream);
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_to_cpu", &to_cpu);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  // Views and sizes touch no memory, so PyTorch's own code for the CPU serves every device.
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("resize_", &at::native::resize_);
  m.impl("set_.source_Storage", static_cast<Tensor& (*)(Tensor&, at::Storage)>(&at::native::set_));
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
}

// ---------------------------------------------------------------------------------------------------------------------
// Autocast: of the operators that CUDA casts, those of a network of linear layers. (With all of them the compilation
// takes twice as long.)

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(nll_loss, fp32)
  KERNEL_PRIVATEUSEONE(softmax, int, fp32_set_opt_dtype)
  KERNEL_PRIVATEUSEONE(log_softmax, int, fp32_set_opt_dtype)
  KERNEL_PRIVATEUSEONE(sum, fp32_set_opt_dtype)
}

// ---------------------------------------------------------------------------------------------------------------------
// What Python reads

c10::Dict<std::string, int64_t> as_dict(const std::map<std::string, int64_t>& counts) {
  c10::Dict<std::string, int64_t> found;
  for (const auto& [name, count] : counts) found.insert(name, count);
  return found;
}

int64_t get_pending(int64_t card) {
  std::lock_guard<std::mutex> lock(mutex);
  return cards.at(card).pending;
}

int64_t get_synchronizations(int64_t card) {
  std::lock_guard<std::mutex> lock(mutex);
  return cards.at(card).synchronizations;
}

c10::Dict<std::string, int64_t> get_launches(int64_t card) {
  std::lock_guard<std::mutex> lock(mutex);
  return as_dict(cards.at(card).launches);
}

c10::Dict<std::string, int64_t> get_waits() {
  std::lock_guard<std::mutex> lock(mutex);
  return as_dict(waits);
}

void reset() {
  std::lock_guard<std::mutex> lock(mutex);
  waits.clear();
  for (auto& card : cards) card = Card{.allocated = card.allocated};
}

void manual_seed(int64_t card, int64_t seed) { at::Generator(default_generator(card)).set_current_seed(seed); }

Tensor get_random_state(int64_t card) { return default_generator(card).get_state(); }

void set_random_state(int64_t card, const Tensor& state) { at::Generator(default_generator(card)).set_state(state); }

TORCH_LIBRARY(simulated_accelerator, m) {
  m.def("pending", &get_pending);
  m.def("synchronizations", &get_synchronizations);
  m.def("launches", &get_launches);
  m.def("waits", &get_waits);
  m.def("reset", &reset);
  m.def("device_count", [] { return int64_t{CARDS}; });
  m.def("current_device", [] { return int64_t{current}; });
  m.def("manual_seed", &manual_seed);
  m.def("random_state", &get_random_state);
  m.def("set_random_state", &set_random_state);
}

}  // namespace
