// Prints the types that llama.cpp's own rules give to tensors; bench/mixtures.py builds and runs it.
//
// Arguments: numbers of llama_ftype. Standard input: the architecture's name, layers, heads,
// key-value heads, experts, 1 for a network of 70 B, and the number of tensors; then for each
// tensor its name and three dimensions. One line for each file type: its number, and the types.
#include "ggml.h"
#include "llama-ext.h"
#include "llama-model.h"
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char ** argv) {
    char arch[64];
    int layers, heads, shared, experts, is_70b, count;
    if (scanf("%63s %d %d %d %d %d %d", arch, &layers, &heads, &shared, &experts, &is_70b, &count) != 7) {
        return 2;
    }
    // The rules read these plain fields alone, so no constructor runs and few files are linked.
    auto * model = static_cast<llama_model *>(calloc(1, sizeof(llama_model)));
    model->arch = llm_arch_from_string(arch);
    model->type = is_70b ? LLM_TYPE_70B : LLM_TYPE_UNKNOWN;
    model->hparams.n_layer_all = layers;
    model->hparams.n_expert = experts;
    for (int i = 0; i < layers; i++) {
        model->hparams.n_head_arr[i] = heads;
        model->hparams.n_head_kv_arr[i] = shared;
    }
    ggml_context * context = ggml_init({ggml_tensor_overhead() * (count + 1), nullptr, true});
    std::vector<ggml_tensor *> tensors;
    for (int i = 0; i < count; i++) {
        char name[128];
        long long row, rows, matrices;
        if (scanf("%127s %lld %lld %lld", name, &row, &rows, &matrices) != 4) {
            return 3;
        }
        tensors.push_back(ggml_new_tensor_3d(context, GGML_TYPE_F16, row, rows, matrices));
        ggml_set_name(tensors.back(), name);
    }
    for (int i = 1; i < argc; i++) {
        auto params = llama_model_quantize_default_params();
        params.ftype = static_cast<llama_ftype>(atoi(argv[i]));
        auto * state = llama_quant_init(model, &params);
        std::vector<ggml_type> types(count);
        llama_quant_compute_types(state, params.ftype, tensors.data(), types.data(), count);
        printf("%s", argv[i]);
        for (auto type : types) {
            printf(" %s", ggml_type_name(type));
        }
        printf("\n");
        llama_quant_free(state);
    }
}
