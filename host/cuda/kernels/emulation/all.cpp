// Every kernel in one library. Each file has names of its own for the sizes of its blocks, so each has a namespace.
#include "../attention.cuh"
#include "../products.cuh"

namespace linear_kernels {
#include "../linear.cu"
}
namespace conv_kernels {
#include "../conv.cu"
}
namespace attention_bf16_kernels {
#include "../attention_bf16.cu"
}
#undef ATTENTION
namespace attention_plain_kernels {
#include "../attention_plain.cu"
}
namespace norm_kernels {
#include "../norms.cu"
}
namespace group_kernels {
#include "../groups.cu"
}
namespace element_kernels {
#include "../elements.cu"
}
namespace stored_kernels {
#include "../stored.cu"
}
namespace move_kernels {
#include "../moves.cu"
}
